//! Configurations: faults that can be drawn, and an explanation that is the same configuration again.
#![no_main]

use corecast::config::{Config, DEFAULT, Explanation, Faults, Input, full};
use corecast_fuzz::{choice, seeds, within};
use libfuzzer_sys::fuzz_target;

/// What a configuration takes beside its text: every directive with its value and where it comes from.
const OWN_BYTES_MAX: usize = 1 << 20;
/// What a byte of text may take: a fault of its own, with its words.
const BYTES_PER_BYTE_MAX: usize = 512;

fuzz_target!(
    init: {
        seeds(texts);
        // Nothing is there to be included.
        let empty = std::env::temp_dir().join("corecast-fuzz-config");
        std::fs::create_dir_all(&empty).and_then(|()| std::env::set_current_dir(&empty)).expect("a directory");
    },
    |data: &[u8]| {
        let (variant, data) = choice(data);
        let Ok(text) = std::str::from_utf8(data) else { return };
        if is_outside(text) {
            return;
        }
        // What follows a line of `---` are variables of the environment.
        let (text, variables) = text.split_once("\n---\n").unwrap_or((text, ""));
        let variables: Vec<(String, String)> = variables
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let input = Input { text: Some(("fuzz.conf", text)), variables, lenient: variant & 1 == 1, ..Input::default() };
        let bytes_max = OWN_BYTES_MAX + BYTES_PER_BYTE_MAX * data.len();
        match within(bytes_max, || Config::load(&input)) {
            Ok(loaded) => {
                check_faults(&loaded.warnings);
                check_config(&loaded.config);
                check_explanation(&loaded.explanation);
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                check_faults(&faults);
            }
        }
    }
);

/// Whether a text could name files of this machine: reading some of them never ends.
fn is_outside(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !"\\\"'".contains(*c)).collect();
    ["include", "/dev", "/proc", "/sys", ".."].iter().any(|part| plain.contains(part))
}

/// Each fault says something of a place that is there, and can be drawn.
fn check_faults(faults: &Faults) {
    for fault in faults.list() {
        assert!(!fault.message.is_empty());
        assert!(fault.place.as_ref().is_none_or(|place| place.span.is_empty() || !faults.text_of(fault).is_empty()));
    }
    assert_eq!(faults.to_string().is_empty(), faults.is_empty());
}

fn check_config(config: &Config) {
    assert!(config.endpoints().next().is_some() && !config.vhosts.is_empty());
    for vhost in &config.vhosts {
        assert!((128..=65_536).contains(&vhost.chunk_size));
        assert!(config.vhost_named(&vhost.name).is_some());
        if let Some((_, app, stream)) = config.live_stream(&vhost.name, "/live/livestream.flv") {
            assert!(!app.is_empty() && !stream.is_empty());
        }
    }
}

/// An explanation is a configuration that means the same, but for its secrets.
fn check_explanation(explanation: &Explanation) {
    let text = explanation.to_string();
    let again = match Config::load(&Input { text: Some(("explained.conf", &text)), ..Input::default() }) {
        Ok(again) => again,
        Err(faults) => panic!("{faults}\n{text}"),
    };
    for changes in [again.explanation.changes_since(explanation), explanation.changes_since(&again.explanation)] {
        for change in changes {
            assert_eq!(change.before, change.now, "{change:?}\n{text}");
        }
    }
}

fn texts() -> Vec<String> {
    let all = full();
    // Each block of the table alone, and its lines that stand as comments.
    let mut texts: Vec<String> = all.split("\n\n").map(|part| format!("\0{part}")).collect();
    texts.extend(all.split("\n\n").map(|part| format!("\0{}", part.replace("# ", ""))));
    // Whole blocks, with what stands in them.
    let bare: String =
        all.lines().filter(|line| !line.trim_start().starts_with('#')).map(|line| format!("{line}\n")).collect();
    texts.extend(bare.split_inclusive("\n}\n").map(|block| format!("\0listen 1;\n{block}")));
    texts.push(format!("\x01{DEFAULT}"));
    texts.push(
        "\0listen 1935; rtmp { listen 1935; chunk_size 4096; } daemon off;\nvhost a { play { mw_latency auto; gop_cache \
         off; queue_length 10; } publish { mr on; mr_latency 350; normal_timeout 5000; } }"
            .to_owned(),
    );
    texts.push(
        "\0listen 1935; http_server { enabled on; listen 8080 proxy_protocol; dir './a b'; } http_api { enabled on; \
         listen 1985; auth { enabled on; username \"u;\"; password p; } } exporter { enabled on; label 'a b'; }"
            .to_owned(),
    );
    texts.push(
        "\x01listen 1935; vhost b { security { enabled on; allow play all; deny publish 10.0.0.0/8; } http_hooks { \
         enabled on; on_play http://h/a http://h/b; } signed_url { enabled on; key 'k'; } forward x; }"
            .to_owned(),
    );
    texts.push("\0\n---\nSRS_LISTEN=1935\nSRS_MAX_CONNECTIONS=10\nSRS_VHOST_PLAY_GOP_CACHE=off\nSRS_X=1".to_owned());
    texts.push("\0listen 1935; vhost { } vhost a b; } \"open".to_owned());
    texts
}
