use super::super::{Config, DEFAULT};

fn faults(text: &str) -> Vec<(String, String, Option<String>)> {
    let faults = Config::parse("x.conf", text).unwrap_err();
    let fault = |fault: &super::Fault| (text[fault.span.clone()].to_owned(), fault.message.clone(), fault.help.clone());
    faults.list().iter().map(fault).collect()
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
    let text = "listen 70000; max_connections 0; vhost a { tcp_nodelay yes; chunk_size 1; publish { mr on; } } vhost a { } nonsense 1;";
    let found: Vec<_> = faults(text).into_iter().map(|(at, ..)| at).collect();
    assert_eq!(found, ["70000", "0", "yes", "1", "publish", "a", "nonsense"]);
}

#[test]
fn broken_syntax_is_named() {
    assert_eq!(first_fault("listen 1935"), "`listen` is not ended");
    assert_eq!(first_fault("vhost a { tcp_nodelay on }"), "`tcp_nodelay` is not ended");
    assert_eq!(first_fault("listen 1; vhost a { "), "this `{` is never closed");
    assert_eq!(first_fault("listen 1; }"), "this `}` closes nothing");
    assert_eq!(first_fault("listen 'x;"), "this quote is never closed");
    assert_eq!(first_fault("; listen 1;"), "a directive's name is expected here");
    assert_eq!(first_fault(""), "no `listen` directive");
    assert_eq!(first_fault(&"a {".repeat(10_000)), "blocks nested deeper than 16");
    assert_eq!(first_fault("listen 1 2; rtmp { listen 3; }"), "`listen` is set at the top level too, and differs");
    assert_eq!(first_fault("listen 1 1;"), "0.0.0.0:1 is listened on already");
    assert_eq!(first_fault("listen 1; chunk_size 128; chunk_size 129;"), "`chunk_size` is set twice");
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
