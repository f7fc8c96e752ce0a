//! URLs and stream addresses: safe names, and the same when written anew.
#![no_main]

use corecast::proto::{
    address::{DEFAULT_VHOST, NAME_BYTES_MAX, StreamAddress},
    http::HttpUrl,
    rtmp::url::RtmpUrl,
};
use corecast_fuzz::{bound, seeds, within};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seeds(urls), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let [tc_url, app, stream] = [(); 3].map(|()| lines.next().unwrap_or_default());
    // The items of a query are listed beside their text.
    if let Ok(address) = within(bound(16 * text.len()), || StreamAddress::resolve(tc_url, app, stream)) {
        check_address(&address);
    }
    if let Ok(url) = RtmpUrl::parse(tc_url) {
        assert_eq!(RtmpUrl::parse(&url.to_string()), Ok(url.clone()));
        // What the client makes of it, the server understands.
        let sent = StreamAddress::resolve(&url.tc_url(), &url.app, &url.stream);
        assert!(sent.is_err() || !sent.is_ok_and(|address| address.stream.is_empty()));
    }
    if let Some(url) = HttpUrl::parse(tc_url) {
        let scheme = ["http", "https", "ws", "wss"][usize::from(url.websocket) * 2 + usize::from(url.tls)];
        let HttpUrl { authority, target, .. } = &url;
        assert_eq!(HttpUrl::parse(&format!("{scheme}://{authority}{target}")).as_ref(), Some(&url));
        assert!(target.starts_with('/') && !url.host.is_empty());
    }
});

fn check_address(address: &StreamAddress) {
    let StreamAddress { vhost, app, stream, param } = address;
    assert!(app.len() + stream.len() <= NAME_BYTES_MAX);
    for level in app.split('/').chain([stream.as_str()]) {
        assert!(!level.is_empty() && level != ".." && !level.contains(['/', '\\']), "{address:?}");
        assert!(!level.contains(char::is_control), "{address:?}");
    }
    assert!(param.is_empty() || param.starts_with('?') && param.len() > 1, "{address:?}");
    assert!(address.key("v").starts_with("v/"));
    // An address that is resolved names itself. The default vhost is named by naming none, and a host name that is
    // none may have what ends an item of a query.
    if vhost != DEFAULT_VHOST && !vhost.contains(['&', '?']) {
        let query = format!("{param}{}vhost={vhost}", if param.is_empty() { '?' } else { '&' });
        let query = if vhost.is_empty() { param } else { &query };
        let again = StreamAddress::resolve("", app, &format!("{stream}{query}"));
        assert_eq!(again.as_ref(), Ok(address));
    }
}

fn urls() -> Vec<&'static str> {
    vec![
        "rtmp://demo.example.com:1935/live\nlive\nlivestream?token=1",
        "rtmp://[::1]:1935/live\nlive/_definst_\na/b?vhost=v&a=1",
        "rtmp://h/live?a=1\nlive?a=1\ns?b=2&domain=d",
        "rtmp://h/live...vhost...v\nlive...vhost...v\nstream",
        "rtmp://[::1]:19350/a/b/c?d=e",
        "http://[::1]:8080/live/a.flv?b=c",
        "wss://h:1/a",
        "rtmp://h/a\n\na\\..",
    ]
}
