//! Files as SRS's users have them: old spellings, and blocks that are written down and off.

use super::{faults::Fault, place::Word, syntax::Directive};

/// SRS's blocks that are off unless they say `enabled on`: written down and off, they ask for nothing.
const OFF_UNLESS_ENABLED: &[&str] = &[
    "srt_server",
    "rtc_server",
    "rtsp_server",
    "stream_caster",
    "heartbeat",
    "hls",
    "dash",
    "dvr",
    "transcode",
    "ingest",
    "rtc",
    "srt",
    "rtsp",
    "refer",
    "exec",
    "http_static",
];

/// Whether a directive that is not built asks for nothing: a block that is not switched on, a flag that is off.
pub(super) fn asks_for_nothing(directive: &Directive) -> bool {
    match &directive.block {
        None => directive.arguments.iter().map(|word| word.text.as_str()).eq(["off"]),
        Some(inside) => {
            let on = |directive: &Directive| directive.name.text == "enabled" && directive.arguments.iter().any(is_on);
            OFF_UNLESS_ENABLED.contains(&directive.name.text.as_str()) && !inside.iter().any(on)
        }
    }
}

fn is_on(word: &Word) -> bool {
    word.text == "on"
}

/// Old spellings of a vhost: where each directive stands today, and how it is called there.
const MOVED: &[(&str, &str, &str)] = &[
    ("gop_cache", "play", "gop_cache"),
    ("gop_cache_max_frames", "play", "gop_cache_max_frames"),
    ("queue_length", "play", "queue_length"),
    ("time_jitter", "play", "time_jitter"),
    ("mix_correct", "play", "mix_correct"),
    ("atc", "play", "atc"),
    ("atc_auto", "play", "atc_auto"),
    ("mw_latency", "play", "mw_latency"),
    ("send_min_interval", "play", "send_min_interval"),
    ("reduce_sequence_header", "play", "reduce_sequence_header"),
    ("publish_1stpkt_timeout", "publish", "firstpkt_timeout"),
    ("publish_normal_timeout", "publish", "normal_timeout"),
];

/// Puts directives of old files where they stand today, with a warning each.
pub(super) fn modernise(directives: &mut [Directive], warnings: &mut Vec<Fault>) {
    for directive in directives.iter_mut() {
        match (directive.name.text.as_str(), &mut directive.block) {
            ("http_stream", Some(_)) => {
                warn(&directive.name, "http_server", warnings);
                "http_server".clone_into(&mut directive.name.text);
            }
            ("vhost", Some(inside)) => modernise_vhost(inside, warnings),
            _ => {}
        }
    }
}

fn modernise_vhost(inside: &mut Vec<Directive>, warnings: &mut Vec<Fault>) {
    for mut directive in std::mem::take(inside) {
        let name = directive.name.text.clone();
        let moved = MOVED.iter().find(|(old, ..)| directive.block.is_none() && *old == name);
        if let Some((_, block, today)) = moved {
            warn(&directive.name, &format!("{block} {{ {today} }}"), warnings);
            (*today).clone_into(&mut directive.name.text);
            block_of(inside, block, &directive.name).push(directive);
        } else if name == "forward" && directive.block.is_none() {
            warn(&directive.name, "forward { enabled on; destination }", warnings);
            let at = directive.name.clone();
            let word = |text: &str| Word { text: text.to_owned(), place: at.place.clone() };
            let enabled = Directive { name: word("enabled"), arguments: vec![word("on")], block: None };
            "destination".clone_into(&mut directive.name.text);
            block_of(inside, "forward", &at).extend([enabled, directive]);
        } else if let ("mr", Some(old)) = (name.as_str(), &mut directive.block) {
            warn(&directive.name, "publish { mr; mr_latency }", warnings);
            for mut setting in std::mem::take(old) {
                let today =
                    if setting.name.text == "enabled" { "mr".to_owned() } else { format!("mr_{}", setting.name.text) };
                setting.name.text = today;
                block_of(inside, "publish", &directive.name).push(setting);
            }
        } else if let (Some(more), true) =
            (&mut directive.block, matches!(name.as_str(), "play" | "publish" | "forward"))
        {
            let more = std::mem::take(more);
            block_of(inside, &name, &directive.name).extend(more);
        } else {
            inside.push(directive);
        }
    }
}

fn warn(name: &Word, today: &str, warnings: &mut Vec<Fault>) {
    let message = format!("`{}` is an old spelling of SRS's", name.text);
    warnings.push(Fault::new(name, message).help(format!("taken as `{today}`")));
}

/// The inside of a block, which is made if it is not there.
fn block_of<'a>(inside: &'a mut Vec<Directive>, name: &str, at: &Word) -> &'a mut Vec<Directive> {
    let found = inside.iter().position(|directive| directive.name.text == name && directive.block.is_some());
    let index = found.unwrap_or_else(|| {
        let name = Word { text: name.to_owned(), place: at.place.clone() };
        inside.push(Directive { name, arguments: Vec::new(), block: Some(Vec::new()) });
        inside.len() - 1
    });
    inside[index].block.get_or_insert_default()
}
