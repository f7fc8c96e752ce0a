//! Hooks field by field: what SRS 7.0.128 writes, and nothing else.

use crate::{
    hooks::Hook,
    live::Live,
    peer::{Peer, connected},
    server::eventually,
    web::Web,
};
use serde_json::{Map, Value};
use std::io::{Read, Write};

/// Each action's object; `<string>` and `<integer>` stand for what differs each time.
const FIXTURES: &str = include_str!("../fixtures/hooks.json");

/// What is told of each action, in the words of the fixtures.
fn expected() -> Map<String, Value> {
    serde_json::from_str(FIXTURES).expect("JSON")
}

/// Whether a value is what the fixture says.
fn fits(fixture: &Value, told: &Value) -> bool {
    match fixture.as_str() {
        Some("<string>") => told.as_str().is_some_and(|text| !text.is_empty()),
        Some("<integer>") => told.is_u64() && told.as_u64() > Some(0),
        _ => fixture == told,
    }
}

/// What differs between an event and its fixture.
fn differences(fixture: &Value, told: &Value) -> Vec<String> {
    let (fixture, told) = (fixture.as_object().expect("an object"), told.as_object().expect("an object"));
    let missing = fixture.iter().filter(|(name, value)| !told.get(*name).is_some_and(|told| fits(value, told)));
    let missing = missing.map(|(name, value)| format!("{name}: {value} expected, {:?} told", told.get(name)));
    let more = told.keys().filter(|name| !fixture.contains_key(*name)).map(|name| format!("{name}: not SRS's"));
    missing.chain(more).collect()
}

/// Every hook, of RTMP's and HTTP's clients, and of a vhost with a name.
#[test]
fn every_hook_has_srs_s_fields() {
    let hook = Hook::start(|event| {
        let forwards = event["action"] == "on_forward";
        Some(if forwards { r#"{"code":0,"data":{"urls":[]}}"# } else { r#"{"code":0}"# }.to_owned())
    });
    let urls: Vec<String> = ["on_connect", "on_close", "on_publish", "on_unpublish", "on_play", "on_stop"]
        .iter()
        .map(|name| format!("{name} {};", hook.url))
        .collect();
    let vhost = format!(
        "http_remux {{ enabled on; }} http_hooks {{ enabled on; {} }} forward {{ enabled on; backend {}; }}",
        urls.join(" "),
        hook.url
    );
    let top = crate::web::config("server_id vid-fixture;", "", &vhost);
    let server = crate::server::Server::start(&format!("{top} vhost v.example {{ {vhost} }}"));
    let web = Web { server };
    let address = web.server.address();
    let mut told = expected();
    told.values_mut().for_each(|fixture| fixture["server_id"] = Value::from("vid-fixture"));
    let publisher = Peer::publish(address, "live", "s?token=1");
    let player = Peer::play(address, "live", "s?token=1");
    hook.wait("on_play");
    drop((player, publisher));
    let all = || hook.all();
    eventually("two closes", || {
        (all().iter().filter(|event| event["action"] == "on_close").count() == 2).then_some(())
    });
    for action in told.keys().filter(|action| !action.contains(' ')) {
        let event = hook.wait(action);
        assert_eq!(differences(&told[action], &event), [] as [String; 0], "{action}: {event}");
    }
    // A vhost with a name, and HTTP: no on_connect and no on_close.
    let _live = Live::start(address, "live", "t?vhost=v.example", 20, 25, 0);
    web.live("t");
    let mut socket = connected(web.http());
    socket
        .write_all(b"GET /live/t.flv?token=2 HTTP/1.1\r\nHost: v.example\r\nReferer: http://page/\r\n\r\n")
        .expect("a request");
    socket.read_exact(&mut [0; 100]).expect("a response");
    drop(socket);
    let of_vhost = |action: &str| {
        eventually(action, || {
            all().into_iter().find(|event| event["action"] == action && event["vhost"] == "v.example")
        })
    };
    for action in ["on_play", "on_stop"] {
        let event = of_vhost(action);
        assert_eq!(differences(&told[&format!("{action} http")], &event), [] as [String; 0], "{event}");
    }
    assert_eq!(of_vhost("on_publish")["stream_url"], "v.example/live/t");
    let ids: Vec<Value> = all().into_iter().map(|event| event["service_id"].clone()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "one service_id for the process: {ids:?}");
}
