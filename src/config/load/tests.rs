use super::super::{Config, DEFAULT, Input, Loaded, LogLevel, full};
use std::fs;

fn faults(text: &str) -> Vec<(String, String, Option<String>)> {
    let faults = Config::parse("x.conf", text).unwrap_err();
    let list = faults.list().iter();
    list.map(|fault| (faults.text_of(fault).to_owned(), fault.message.clone(), fault.help.clone())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Loaded {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::load(&Input { text: Some(("x.conf", text)), variables, ..Input::default() }).unwrap()
}

fn first_fault(text: &str) -> String {
    faults(text)[0].1.clone()
}

#[test]
fn the_embedded_configuration_is_good() {
    let config = Config::parse("default", DEFAULT).unwrap();
    let listen: Vec<_> = config.listen.iter().map(|listen| listen.address.to_string()).collect();
    assert_eq!(listen, ["0.0.0.0:1935", "[::]:1935"]);
    assert!(config.vhost("any.host").unwrap().play.gop_cache);
}

#[test]
fn defaults_and_what_min_latency_changes() {
    let vhost =
        |inner: &str| Config::parse("x", &format!("listen 1935; vhost v {{ {inner} }}")).unwrap().vhosts[0].clone();
    let plain = vhost("");
    assert_eq!(
        (plain.chunk_size, plain.play.mw_latency_ms, plain.play.mw_msgs, plain.play.queue_length_s),
        (60_000, Some(350), 8, 30)
    );
    let realtime = vhost("min_latency on;");
    assert_eq!((realtime.play.mw_latency_ms, realtime.play.mw_msgs), (Some(0), 0));
    assert_eq!(
        vhost("min_latency on; play { mw_latency 100; }").play.mw_latency_ms,
        Some(100),
        "K5: an explicit value is obeyed"
    );
    let auto = vhost("play { mw_latency auto; }");
    assert_eq!((auto.play.mw_latency_ms, auto.play.mw_msgs), (None, 0));
    assert!(Config::parse("x", "listen 1; vhost v { play { mw_latency often; } }").is_err());
    let config =
        Config::parse("x", "rtmp { listen 1; chunk_size 128; } vhost a { chunk_size 4096; } vhost b { }").unwrap();
    assert_eq!((config.vhosts[0].chunk_size, config.vhosts[1].chunk_size), (4096, 128));
}

#[test]
fn comments_quotes_and_several_listens() {
    let text = "# c\nlisten '1935' \"[::]:1935\"; listen 127.0.0.1:1936 proxy_protocol; # d\nvhost \"v\" {}";
    let config = Config::parse("x", text).unwrap();
    assert_eq!(config.listen.len(), 3);
    assert!(!config.listen[1].proxy_protocol && config.listen[2].proxy_protocol);
}

/// E3: file, line, column, what is wrong, and what to write instead.
#[test]
fn faults_are_drawn_with_their_place() {
    let text = "listen 1935;\nvhost __defaultVhost__ {\n    play {\n        gop_cahce on;\n    }\n}\n";
    let drawn = Config::parse("conf/x.conf", text).unwrap_err().to_string();
    assert!(drawn.contains("conf/x.conf:4:9"), "{drawn}");
    assert!(
        drawn.contains("`gop_cahce` is not known in `play`") && drawn.contains("did you mean `gop_cache`?"),
        "{drawn}"
    );
}

#[test]
fn every_fault_is_found_at_once() {
    let text = "listen 70000; max_connections 0; vhost a { tcp_nodelay yes; chunk_size 1; srt { enabled on; } } vhost a { } nonsense 1;";
    let found: Vec<_> = faults(text).into_iter().map(|(at, ..)| at).collect();
    assert_eq!(found, ["70000", "0", "yes", "1", "srt", "a", "nonsense"]);
}

#[test]
fn broken_syntax_is_named() {
    assert_eq!(first_fault("listen 1935"), "`listen` is not ended");
    assert_eq!(first_fault("vhost a { tcp_nodelay on }"), "`tcp_nodelay` is not ended");
    assert_eq!(first_fault("listen 1; vhost a { "), "this `{` is never closed");
    assert_eq!(first_fault("listen 1; }"), "this `}` closes nothing");
    assert_eq!(first_fault("listen 'x;"), "this quote is never closed");
    assert_eq!(first_fault("; listen 1;"), "a directive's name is expected here");
    assert_eq!(first_fault(""), "x.conf: no `listen` directive, so nobody could connect");
    assert!(faults(&"a {".repeat(10_000)).iter().any(|fault| fault.1 == "blocks nested deeper than 16"));
    assert_eq!(first_fault("listen 1 2; rtmp { listen 3; }"), "`listen` is set at the top level too, and differs");
    assert_eq!(first_fault("listen 1 1;"), "0.0.0.0:1 is listened on already");
    let twice = load("listen 1; chunk_size 128; chunk_size 129;", &[]);
    assert_eq!(twice.config.vhosts[0].chunk_size, 128, "the first counts, as with SRS");
    assert!(twice.warnings.to_string().contains("`chunk_size` is set twice"), "{}", twice.warnings);
    // The last character of a text may be of several bytes.
    drop(Config::parse("x", "#\n\"\"\u{e9}}").unwrap_err().to_string());
    // A forgotten `;` costs its own directive only.
    let found: Vec<_> =
        faults("listen 1935\nmax_connections 0;\nvhost a { tcp_nodelay on }").into_iter().map(|(_, m, _)| m).collect();
    assert_eq!(found, ["`listen` is not ended", "`0` is no value for `max_connections`", "`tcp_nodelay` is not ended"]);
}

/// E1, K1: a variable goes before the file; one of a vhost covers all vhosts.
#[test]
fn e1_variables_override_the_file() {
    let text = "listen 1; chunk_size 1000; vhost a { chunk_size 2000; play { mw_latency 100; } } vhost b { }";
    let variables = [
        ("SRS_LISTEN", "1935 [::]:1935"),
        ("SRS_CHUNK_SIZE", "4096"),
        ("SRS_VHOST_PLAY_MW_LATENCY", "200"),
        ("SRS_VHOST_PUBLISH_MR", "on"),
        ("SRS_VHOST_PLAY_GOP_CACHE", ""),
        ("SRS_PORT", "tcp://10.0.0.1:80"),
    ];
    let Loaded { config, explanation, warnings, .. } = load(text, &variables);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.vhosts.iter().map(|vhost| vhost.chunk_size).collect::<Vec<_>>(), [2000, 4096]);
    assert!(
        config
            .vhosts
            .iter()
            .all(|vhost| vhost.play.mw_latency_ms == Some(200) && vhost.publish.mr_latency_ms == Some(350))
    );
    assert!(warnings.is_empty() && config.vhosts[0].play.gop_cache);
    let said = explanation.to_string();
    assert!(
        said.contains("# SRS_VHOST_PLAY_MW_LATENCY") && said.contains("# x.conf:1") && said.contains("# default"),
        "{said}"
    );
    assert_eq!(load("", &[("SRS_RTMP_LISTEN", "1936")]).config.listen[0].address.port(), 1936);
    let both = [("SRS_LISTEN", "1"), ("SRS_RTMP_LISTEN", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let faults = Config::load(&Input { variables: both.to_vec(), ..Input::default() }).unwrap_err();
    assert!(faults.to_string().contains("SRS_LISTEN and SRS_RTMP_LISTEN are both set, and differ"), "{faults}");
    let near = load("listen 1;", &[("SRS_VHOST_PLAY_GOP_CAHCE", "on")]).warnings.to_string();
    assert!(near.contains("did you mean SRS_VHOST_PLAY_GOP_CACHE?"), "{near}");
}

/// What `--explain` prints is a configuration that means the same.
#[test]
fn an_explanation_is_a_configuration() {
    let text = "rtmp { listen 1935 127.0.0.1:1936; } vhost \"a b\" { min_latency on; publish { takeover replace; } } vhost c { play { mw_latency auto; } }";
    let first = load(text, &[]);
    let again = load(&first.explanation.to_string(), &[]);
    assert_eq!(first.config.vhosts, again.config.vhosts);
    assert!(again.explanation.changes_since(&first.explanation).is_empty());
    // Words that a file has in quotes: spaces, signs of the syntax, quotes, line ends.
    let odd = "listen 1; srs_log_file '/a b;c'; vhost \"d'\\\"\n;\" { http_hooks { on_play 'http://h/a;b' http://h/c; enabled on; } \
        http_remux { enabled on; mount '/[app]/a-b[stream].flv' /[app]/[stream].ts; } }";
    let first = load(odd, &[]);
    let again = load(&first.explanation.to_string(), &[]);
    assert_eq!((&first.config.vhosts, &first.config.log), (&again.config.vhosts, &again.config.log));
    assert!(again.explanation.changes_since(&first.explanation).is_empty());
    let inner = load("rtmp { listen 1935; chunk_size 4096; }", &[]);
    let again = load(&inner.explanation.to_string(), &[]);
    assert_eq!(inner.config.vhosts, again.config.vhosts);
    assert!(again.explanation.changes_since(&inner.explanation).is_empty());
    let first = load(text, &[]);
    let changed = load(&text.replace("auto", "100").replace("1936", "1937"), &[]);
    let changes: Vec<String> = changed
        .explanation
        .changes_since(&first.explanation)
        .iter()
        .map(|change| format!("{} {}>{}", change.what, change.before, change.now))
        .collect();
    assert_eq!(
        changes,
        [
            "rtmp: listen 1935 127.0.0.1:1936>1935 127.0.0.1:1937",
            "vhost c: play: mw_latency auto>100",
            "vhost c: play: mw_msgs 0>8"
        ]
    );
}

/// `conf/full.conf` is what the table says, is a good configuration, and means the defaults.
#[test]
fn full_conf_is_the_table() {
    let file = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/conf/full.conf")).unwrap();
    assert!(file == full(), "write it anew: cargo run --bin corecast directives > conf/full.conf");
    let config = Config::parse("full.conf", &file).unwrap();
    assert_eq!(config.vhosts, Config::parse("x", "listen 1; vhost __defaultVhost__ { }").unwrap().vhosts);
}

/// Includes: patterns, nesting, a cycle, a file that is not there; faults name the file that they are in.
#[test]
fn includes_are_read_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("vhosts")).unwrap();
    fs::write(path("main.conf"), "listen 1; include vhosts/*.conf; include none/*.conf; vhost c { include play.inc; }")
        .unwrap();
    fs::write(path("vhosts/a.conf"), "vhost a { }").unwrap();
    fs::write(path("vhosts/b.conf"), "vhost b { }").unwrap();
    fs::write(path("play.inc"), "play { queue_length 7; }").unwrap();
    let read = |name: &str| Config::load(&Input { file: Some(&path(name)), ..Input::default() });
    let config = read("main.conf").unwrap().config;
    assert_eq!(config.vhosts.iter().map(|vhost| vhost.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(config.vhosts[2].play.queue_length_s, 7);
    fs::write(path("vhosts/b.conf"), "vhost b {\n  play { gop_cache 1; }\n}\ninclude ../main.conf missing.conf;")
        .unwrap();
    let faults = read("main.conf").unwrap_err().to_string();
    for text in ["b.conf:2:20", "`1` is neither `on` nor `off`", "includes itself", "`missing.conf` does not exist"] {
        assert!(faults.contains(text), "{text}: {faults}");
    }
}

/// What SRS has and we do not: refused, or left out with a warning.
#[test]
fn what_is_not_supported_is_named() {
    let text = "listen 1; rtc_server { enabled on; listen 8000; } vhost a { srt { enabled on; } }";
    let found: Vec<_> = faults(text).into_iter().map(|(at, message, help)| (at, message, help.unwrap())).collect();
    assert_eq!(
        found[0],
        (
            "rtc_server".to_owned(),
            "`rtc_server` is SRS's and not supported: WebRTC".to_owned(),
            "remove it, or run with --lenient".to_owned()
        )
    );
    assert_eq!(found[1].0, "srt");
    let lenient = Config::load(&Input { text: Some(("x", text)), lenient: true, ..Input::default() }).unwrap();
    assert_eq!((lenient.warnings.list().len(), lenient.config.vhosts.len()), (2, 1));
}

/// SRS's own way to say what it says: accepted, with a line for what is done instead; and old spellings.
#[test]
fn files_of_srs_start() {
    let loaded = load(
        "listen 1; daemon on; work_dir /srv; pid ./objs/x.pid; stats { network 0; disk sda; } utc_time off; \
         srs_log_level_v2 debug; server_id box-7; heartbeat { enabled off; } http_stream { enabled on; } \
         srt_server { enabled off; listen 10080; } vhost __defaultVhost__ { hls { hls_fragment 10; } gop_cache off; \
         queue_length 7; play { mw_latency 90; } mr { enabled on; latency 500; } publish_normal_timeout 7000; \
         forward 127.0.0.1:19350 192.168.1.2; bandcheck { enabled on; key x; } }",
        &[],
    );
    let Loaded { config, warnings, .. } = loaded;
    let said: Vec<&str> = warnings.list().iter().map(|fault| warnings.text_of(fault)).collect();
    let expected = [
        "on",
        "stats",
        "utc_time",
        "http_stream",
        "gop_cache",
        "queue_length",
        "mr",
        "publish_normal_timeout",
        "forward",
        "bandcheck",
    ];
    assert_eq!(said, expected);
    assert_eq!((config.pid.unwrap().to_str(), config.server_id.as_deref()), (Some("./objs/x.pid"), Some("box-7")));
    assert_eq!((config.log.level, config.http.enabled()), (LogLevel::Info, true));
    let vhost = &config.vhosts[0];
    assert_eq!((vhost.play.gop_cache, vhost.play.queue_length_s, vhost.play.mw_latency_ms), (false, 7, Some(90)));
    assert_eq!((vhost.publish.mr_latency_ms, vhost.publish.normal_timeout_ms), (Some(500), 7000));
    assert_eq!(vhost.forward.destinations.len(), 2);
    // What is on is refused, however it is written.
    assert_eq!(faults("listen 1; vhost a { rtc { enabled on; } } srt_server { enabled on; }").len(), 2);
}

proptest::proptest! {
    /// No text panics, and every fault can be drawn.
    #[test]
    fn any_text(text in "[a-z0-9 ;{}\"'#\\\\\n\u{e9}]{0,200}") {
        if let Err(faults) = Config::parse("x", &text) {
            drop(faults.to_string());
        }
    }
}

/// A variable is as its directive: it acts, is accepted with a line, is refused where it would switch on what is not
/// there, and says nothing where it cannot matter.
#[test]
fn variables_are_as_their_directives() {
    let outcome = |name: &str, value: &str| {
        let variables = vec![(name.to_owned(), value.to_owned())];
        let text = Some(("x.conf", "listen 1;"));
        match Config::load(&Input { text, variables, ..Input::default() }) {
            Ok(loaded) => loaded.warnings.list().iter().map(|warning| warning.message.clone()).collect(),
            Err(faults) => faults.to_string(),
        }
    };
    for (name, value) in [
        ("SRS_SRT_SERVER_LISTEN", "10080"),
        ("SRS_SRT_SERVER_ENABLED", "off"),
        ("SRS_RTC_SERVER_TCP_ENABLED", "on"),
        ("SRS_VHOST_HLS_HLS_FRAGMENT", "3"),
        ("SRS_VHOST_SRT_TO_RTMP", "on"),
        ("SRS_CONFIG_FILE", "x.conf"),
        ("SRS_PORT_1935_TCP_ADDR", "10.0.0.1"),
        ("SRS_SERVICE_HOST", "10.0.0.1"),
        ("SRS_WORK_DIR", "./"),
        ("SRS_SERVER_ID", "x"),
        ("SRS_PID", "/tmp/x"),
    ] {
        assert_eq!(outcome(name, value), "", "{name}");
    }
    for name in
        ["SRS_UTC_TIME", "SRS_VHOST_HTTP_HOOKS_ON_HLS_NOTIFY", "SRS_CIRCUIT_BREAKER_ENABLED", "SRS_STATS_NETWORK"]
    {
        assert_eq!(outcome(name, "on"), format!("`{name}` is SRS's and changes nothing"));
    }
    for name in ["SRS_VHOST_SRT_ENABLED", "SRS_RTC_SERVER_ENABLED", "SRS_VHOST_RTC_ENABLED", "SRS_VHOST_RTSP_ENABLED"] {
        let said = outcome(name, "on");
        assert!(said.contains(&format!("`{name}` is SRS's and not supported")) && said.contains("unset it"), "{said}");
        let variables = vec![(name.to_owned(), "on".to_owned())];
        let text = Some(("x.conf", "listen 1;"));
        let lenient = Config::load(&Input { text, variables, lenient: true, ..Input::default() }).unwrap();
        assert_eq!(lenient.warnings.list().len(), 1, "{name}");
    }
    assert!(outcome("SRS_VHOST_SRT_ENABELD", "on").contains("is not known"));
}

/// Old spellings stand where they stand today, and go before what is there, as with SRS.
#[test]
fn old_spellings_are_taken() {
    let Loaded { config, warnings, .. } = load(
        "listen 1; is_full on; http_stream { enabled on; listen 8080; } vhost v {
            gop_cache off; play { gop_cache on; queue_length 7; } publish_1stpkt_timeout 3000; mr { enabled on; latency 400; }
            forward 127.0.0.1:2; refer a.com B.com; refer_play c.com; refer_publish d.com; mode local; nack { enabled on; }
            http_hooks { enabled on; on_hls_notify http://h/x; } http_remux { hstrs on; } }",
        &[],
    );
    let vhost = &config.vhosts[0];
    assert!(!vhost.play.gop_cache && vhost.play.queue_length_s == 7 && config.http.enabled());
    assert_eq!((vhost.publish.firstpkt_timeout_ms, vhost.publish.mr_latency_ms), (3000, Some(400)));
    assert!(!vhost.forward.is_empty() && vhost.refer.enabled);
    assert_eq!(
        (&vhost.refer.all[..], &vhost.refer.play[..]),
        (&["a.com".into(), "b.com".into()][..], &["c.com".into()][..])
    );
    assert_eq!(vhost.refer.publish, ["d.com"]);
    let lines = warnings.list().len();
    assert_eq!(lines, 13, "one line each: {warnings}");
}

/// What is not built is refused where it is switched on, and looked into where it is off.
#[test]
fn blocks_that_are_not_built() {
    let with = |inside: &str| format!("listen 1; vhost v {{ {inside} }}");
    assert!(load(&with("srt { enabled off; srt_to_rtmp on; } rtc { }"), &[]).warnings.is_empty());
    assert_eq!(first_fault(&with("srt { enabled on; }")), "`srt` is SRS's and not supported: SRT");
    assert!(load(&with("mode remote; origin 127.0.0.1;"), &[]).config.vhosts[0].cluster.is_edge());
    assert_eq!(first_fault(&with("srt { enabeld on; }")), "`enabeld` is not known in `srt`");
    assert_eq!(first_fault(&with("http_remux { } http_remux { }")), "`http_remux` is set twice");
    assert_eq!(first_fault(&with("srt_server { enabled on; }")), "`srt_server` is not known in `vhost`");
    assert_eq!(first_fault(&with("refer { enabled on; all http://a/; }")), "`http://a/` is no value for `all`");
}

/// Passwords, tokens and keys stand in no fault and no explanation.
#[test]
fn secrets_are_not_shown() {
    let wrong = "listen 1;\nhttp_api { auth { enabled on; username a; password s3cret1 s3cret2; } }\n\
        vhost v { signed_url { enabled maybe; key s3cret3; } http_hooks { on_publish ftp://u:s3cret4@h/x?t=s3cret5; }\n\
        forward { enabled on; destination rtmp://u:s3cret6@h/a?s3cret7; } }";
    let faults = Config::parse("test", wrong).unwrap_err();
    assert!(faults.list().len() >= 3 && !faults.to_string().contains("s3cret"), "{faults}");
    assert!(faults.to_string().contains("ftp://*********@h/x?t=*"), "{faults}");
}
