//! Command lines: ffmpeg's as SRS spells them, and those of `exec`.

use super::Publish;
use crate::config::Engine;
use std::path::PathBuf;

/// A program, its arguments, and where its output goes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct CommandLine {
    pub(super) program: String,
    pub(super) arguments: Vec<String>,
    pub(super) stdout: Option<Redirect>,
    pub(super) stderr: Option<Redirect>,
}

/// Where one stream of output goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Redirect {
    /// To a file, behind what it has, as SRS does it for `>` too: a program that is started again goes on there.
    File(PathBuf),
    /// Where the other one goes.
    Other,
}

/// ffmpeg's options before the input.
pub(super) fn ffmpeg(program: &str, before: &[&str], input: &str, engine: &Engine, output: &str) -> CommandLine {
    let mut line: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
    line.extend(engine.perfile.iter().cloned());
    // Only RTMP says nothing of its format.
    if input.starts_with("rtmp://") {
        option(&mut line, "-f", Some(&engine.iformat).filter(|format| *format != "off"));
    }
    line.extend(["-i".to_owned(), input.to_owned()]);
    line.extend(engine.vfilter.iter().cloned());
    let number = |number: u32| (number > 0).then(|| number.to_string());
    if engine.vcodec == "vn" {
        line.push("-vn".to_owned());
    } else {
        option(&mut line, "-vcodec", Some(&engine.vcodec));
    }
    if !matches!(engine.vcodec.as_str(), "copy" | "vn") {
        option(&mut line, "-b:v", number(engine.vbitrate.saturating_mul(1000)).as_ref());
        let fps = engine.vfps_hundredths;
        option(&mut line, "-r", (fps > 0).then(|| format!("{}.{:02}", fps / 100, fps % 100)).as_ref());
        if let (Some(width), Some(height)) = (number(engine.vwidth), number(engine.vheight)) {
            option(&mut line, "-s", Some(&format!("{width}x{height}")));
            option(&mut line, "-aspect", Some(&format!("{width}:{height}")));
        }
        option(&mut line, "-threads", number(engine.vthreads).as_ref());
        option(&mut line, "-profile:v", Some(&engine.vprofile));
        option(&mut line, "-preset", Some(&engine.vpreset));
        line.extend(engine.vparams.iter().cloned());
    }
    match engine.acodec.as_str() {
        "an" => line.push("-an".to_owned()),
        "copy" => {
            option(&mut line, "-acodec", Some(&engine.acodec));
            // Of a copied track's options only this filter means something.
            let mut pairs = engine.aparams.windows(2);
            if pairs.any(|pair| pair == ["-bsf:a", "aac_adtstoasc"]) {
                line.extend(["-bsf:a".to_owned(), "aac_adtstoasc".to_owned()]);
            }
        }
        _ => {
            option(&mut line, "-acodec", Some(&engine.acodec));
            option(&mut line, "-b:a", number(engine.abitrate.saturating_mul(1000)).as_ref());
            option(&mut line, "-ar", number(engine.asample_rate).as_ref());
            option(&mut line, "-ac", number(engine.achannels).as_ref());
            line.extend(engine.aparams.iter().cloned());
        }
    }
    option(&mut line, "-f", Some(&engine.oformat).filter(|format| *format != "off"));
    line.extend(["-y".to_owned(), output.to_owned()]);
    CommandLine { program: program.to_owned(), arguments: line, stdout: None, stderr: None }
}

fn option(line: &mut Vec<String>, name: &str, value: Option<&String>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        line.extend([name.to_owned(), value.clone()]);
    }
}

/// A command of `exec`, filled in, and its redirections taken out.
pub(super) fn exec(words: &[String], publish: &Publish) -> Result<CommandLine, String> {
    let mut line = CommandLine::default();
    let mut words = words.iter().map(String::as_str).peekable();
    while let Some(word) = words.next() {
        // `2 > FILE` is the same as `2>FILE`.
        let apart = matches!(word, "1" | "2") && words.peek().is_some_and(|next| next.starts_with('>'));
        let whole = if apart { format!("{word}{}", words.next().unwrap_or_default()) } else { word.to_owned() };
        let Some((stream @ ("" | "1" | "2"), rest)) = whole.split_once('>') else {
            line.arguments.push(fill(word, publish)?);
            continue;
        };
        let rest = rest.strip_prefix('>').unwrap_or(rest);
        let target = if rest.is_empty() { words.next().unwrap_or_default() } else { rest };
        let redirect = match target {
            "" => return Err(format!("`{whole}` names no file")),
            "&1" | "&2" => Redirect::Other,
            path => Redirect::File(PathBuf::from(fill(path, publish)?)),
        };
        *(if stream == "2" { &mut line.stderr } else { &mut line.stdout }) = Some(redirect);
    }
    if line.arguments.is_empty() {
        return Err("there is no program".to_owned());
    }
    line.program = line.arguments.remove(0);
    Ok(line)
}

/// Puts a publish into a template. What came from a stranger goes in only if it can be nothing but a name.
pub(super) fn fill(template: &str, publish: &Publish) -> Result<String, String> {
    let port = publish.port.to_string();
    let url = format!("rtmp://127.0.0.1:{port}/{}/{}?vhost={}", publish.app, publish.stream, publish.vhost);
    let values = [
        ("[vhost]", &publish.vhost, Kind::Name),
        ("[port]", &port, Kind::Name),
        ("[app]", &publish.app, Kind::Path),
        ("[stream]", &publish.stream, Kind::Path),
        ("[param]", &publish.param, Kind::Text),
        ("[tcUrl]", &publish.tc_url, Kind::Text),
        ("[swfUrl]", &publish.swf_url, Kind::Text),
        ("[pageUrl]", &publish.page_url, Kind::Text),
        ("[url]", &url, Kind::Text),
    ];
    let (mut filled, mut rest) = (String::new(), template);
    'next: while let Some(at) = rest.find('[') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        for (name, value, kind) in &values {
            if let Some(behind) = rest.strip_prefix(name) {
                if !kind.allows(value) || *name == "[url]" && !names_are_plain(publish) {
                    return Err(format!("{name} is `{}`, which is not put into a command", value.escape_debug()));
                }
                filled.push_str(value);
                rest = behind;
                continue 'next;
            }
        }
        filled.push('[');
        rest = &rest[1..];
    }
    filled.push_str(rest);
    // An argument that has become an option by what is filled in.
    if filled.starts_with('-') && !template.starts_with('-') {
        return Err(format!("`{template}` would become the option `{}`", filled.escape_debug()));
    }
    Ok(filled)
}

/// Whether app and stream can stand in a URL or a path as they are.
pub(super) fn names_are_plain(publish: &Publish) -> bool {
    Kind::Path.allows(&publish.app) && Kind::Path.allows(&publish.stream)
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// One part of a path.
    Name,
    /// Parts of a path, none of which leads out of it or is hidden.
    Path,
    /// A URL or a query: no spaces, no control characters.
    Text,
}

impl Kind {
    fn allows(self, value: &str) -> bool {
        let plain = |part: &str| {
            let name = |c: char| c.is_alphanumeric() || "_-.,=+@~".contains(c);
            !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(name)
        };
        match self {
            Self::Name => plain(value),
            Self::Path => value.split('/').all(plain),
            Self::Text => value.chars().all(|c| c.is_ascii_graphic()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(stream: &str) -> Publish {
        let text = |text: &str| text.to_owned();
        Publish {
            id: (0, 1),
            vhost: text("v.com"),
            app: text("live"),
            stream: text(stream),
            param: text("?a=1"),
            tc_url: text("rtmp://v.com/live"),
            page_url: String::new(),
            swf_url: String::new(),
            port: 1935,
            programs: std::sync::Arc::default(),
        }
    }

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn ffmpeg_is_spelled_as_srs_spells_it() {
        let engine = Engine {
            perfile: words("-re -rtsp_transport tcp"),
            iformat: "flv".into(),
            vfilter: words("-vf drawtext"),
            vcodec: "libx264".into(),
            vbitrate: 500,
            vfps_hundredths: 2500,
            vwidth: 768,
            vheight: 320,
            vthreads: 4,
            vprofile: "main".into(),
            vpreset: "medium".into(),
            vparams: words("-t 100"),
            acodec: "aac".into(),
            abitrate: 70,
            asample_rate: 44_100,
            achannels: 2,
            aparams: words("-profile:a aac_low"),
            oformat: "flv".into(),
            ..Engine::default()
        };
        let line = ffmpeg("./ffmpeg", &[], "rtmp://127.0.0.1:1935/live/s?vhost=v", &engine, "rtmp://out");
        assert_eq!(
            line.arguments.join(" "),
            "-re -rtsp_transport tcp -f flv -i rtmp://127.0.0.1:1935/live/s?vhost=v -vf drawtext -vcodec libx264 -b:v 500000 \
             -r 25.00 -s 768x320 -aspect 768:320 -threads 4 -profile:v main -preset medium -t 100 -acodec aac -b:a 70000 \
             -ar 44100 -ac 2 -profile:a aac_low -f flv -y rtmp://out"
        );
        let copies = Engine { vcodec: "copy".into(), acodec: "copy".into(), ..engine.clone() };
        let line =
            ffmpeg("ffmpeg", &["-loglevel", "info", "-re"], "./a.flv", &copies, "rtmp://out").arguments.join(" ");
        let expected = "-loglevel info -re -re -rtsp_transport tcp -i ./a.flv -vf drawtext -vcodec copy -acodec copy -f flv -y rtmp://out";
        assert_eq!(line, expected);
        let silent = Engine {
            acodec: "an".into(),
            oformat: "off".into(),
            vbitrate: 0,
            vcodec: "vn".into(),
            ..Engine::default()
        };
        assert_eq!(ffmpeg("f", &[], "a", &silent, "b").arguments, words("-i a -vn -an -y b"));
    }

    #[test]
    fn exec_has_no_shell_but_redirections() {
        let line = exec(&words("./ff -i [url] -y ./[stream].flv >./log/[stream].log 2>&1"), &publish("s")).unwrap();
        assert_eq!(line.program, "./ff");
        assert_eq!(line.arguments, words("-i rtmp://127.0.0.1:1935/live/s?vhost=v.com -y ./s.flv"));
        assert_eq!(line.stdout, Some(Redirect::File("./log/s.log".into())));
        assert_eq!(line.stderr, Some(Redirect::Other));
        let line = exec(&words("ff 1 > a 2 >> b $(ls) | x"), &publish("s")).unwrap();
        assert_eq!(line.arguments, words("$(ls) | x"));
        assert_eq!(line.stderr, Some(Redirect::File("b".into())));
        for bad in ["", "> a", "ff >"] {
            assert!(exec(&words(bad), &publish("s")).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_are_more_than_names_are_not_put_in() {
        for bad in [
            ";rm -rf",
            "../../etc/x",
            "-i",
            "a/../b",
            "a b",
            "a\nb",
            "/etc/x",
            ".hidden",
            "a|b",
            "concat:a",
            "",
            "$(x)",
            "a%2e",
        ] {
            for template in ["[stream]", "./[stream].flv", "[url]"] {
                assert!(fill(template, &publish(bad)).is_err(), "{bad} in {template}");
            }
        }
        for good in ["livestream", "a/b", "s-1_2.x", "ünï"] {
            assert_eq!(fill("x[stream]y[nothing]", &publish(good)).unwrap(), format!("x{good}y[nothing]"));
        }
        let mut hostile = publish("s");
        hostile.page_url = "-evil".to_owned();
        assert!(fill("[pageUrl]", &hostile).is_err() && fill("p=[pageUrl]", &hostile).is_ok());
        // What is filled in is not filled in again.
        hostile.tc_url = "[stream]".to_owned();
        assert_eq!(fill("[tcUrl]", &hostile).unwrap(), "[stream]");
    }
}
