//! The API and the exporter field by field: SRS 7.0.128's names, types and units, and its errors.

use crate::{
    media::{avc_aac, have, publish_on},
    peer::Peer,
    server::{Server, eventually},
    web::{FlvBody, Web, get, request},
};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// How far a time of the server's may be from now, in ms.
const NOW_MS: f64 = 60_000.0;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/api")
}

fn fixture(file: &Path) -> Value {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Whether a number is what a fixture says: its last word is `now`, `LEAST..` or `LEAST..MOST`, or says nothing.
fn is_within(said: &str, value: f64) -> bool {
    let last = said.split(' ').next_back().unwrap_or_default();
    if last == "now" {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis() as f64;
        return (value - now).abs() < NOW_MS;
    }
    let Some((least, most)) = last.split_once("..") else { return true };
    least.parse().is_ok_and(|least| value >= least) && most.parse().map_or(most.is_empty(), |most: f64| value <= most)
}

/// What differs: `said` names a type and perhaps a unit, an exact string behind `=`, an object, or a list of such.
fn differences(at: &str, said: &Value, told: &Value, faults: &mut Vec<String>) {
    let fits = match said {
        Value::Object(fields) => {
            for (name, said) in fields {
                match told.get(name) {
                    Some(told) => differences(&format!("{at}.{name}"), said, told, faults),
                    None => faults.push(format!("{at}.{name} is missing")),
                }
            }
            told.is_object()
        }
        Value::Array(said) => {
            let list = told.as_array().map(Vec::as_slice).unwrap_or_default();
            list.iter().for_each(|told| differences(&format!("{at}[]"), &said[0], told, faults));
            !list.is_empty()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let said = said.as_str().expect("a type");
            match said.split(' ').next().unwrap_or_default() {
                "integer" => (told.is_i64() || told.is_u64()) && is_within(said, told.as_f64().expect("a number")),
                "number" => told.is_f64() && is_within(said, told.as_f64().expect("a number")),
                "string" => told.is_string() || told.is_null() && said.ends_with("null"),
                "boolean" => told.is_boolean(),
                _ => said.strip_prefix('=') == told.as_str(),
            }
        }
    };
    if !fits {
        faults.push(format!("{at}: {said} expected, {told} told"));
    }
}

/// Two streams, one of a vhost with a name, each with a player.
fn busy_server() -> (Web, Vec<crate::media::Running>, Peer, FlvBody) {
    let vhost = "http_remux { enabled on; wait_stream 20; }";
    let top = crate::web::config("", "raw_api { enabled on; }", vhost);
    let top = top.replace("exporter { ", "exporter { label box-7; tag \"north \\\"1\\\"\"; ");
    let web = Web { server: Server::start(&format!("{top} vhost v.example {{ {vhost} }}")) };
    let publishers =
        ["/live/s", "/live/t?vhost=v.example"].map(|path| publish_on(&avc_aac(), &web.server.url(path))).into();
    for name in ["s", "t"] {
        web.live(name);
    }
    let mut player = Peer::play(web.server.address(), "live", "s");
    player.expect_frames(30);
    let mut by_http = FlvBody::ask_for(web.http(), "/live/t.flv?vhost=v.example");
    for _ in 0..60 {
        by_http.next_tag().expect("a response").expect("a tag");
    }
    eventually("rates", || {
        let rates = |path: &str| web.ask(path)["streams"][1]["kbps"]["send_30s"].as_u64();
        (rates("/api/v1/streams")? > 0 && web.ask("/api/v1/clients")["total"] == 4).then_some(())
    });
    (web, publishers, player, by_http)
}

/// Every path answers with every field of SRS's, of its type and unit.
#[test]
fn the_api_has_srs_s_fields() {
    if !have("ffmpeg") {
        return;
    }
    let (web, publishers, _player, _by_http) = busy_server();
    let find = |list: &str, field: &str, value: &str| {
        let all = web.ask(&format!("/api/v1/{list}"))[list].clone();
        let found = all.as_array().expect("a list").iter().find(|found| found[field] == value).cloned();
        found.unwrap_or_else(|| panic!("no {field} {value}: {all}"))
    };
    let (stream, by_http) = (find("streams", "name", "s"), find("clients", "type", "flv-play"));
    let ids = [
        ("{vhost}", find("vhosts", "name", "v.example")["id"].clone()),
        ("{stream}", stream["id"].clone()),
        ("{client}", stream["publish"]["cid"].clone()),
    ];
    assert_eq!((&by_http["url"], &by_http["publish"]), (&"v.example/live/t".into(), &false.into()), "{by_http}");
    let mut faults = Vec::new();
    let mut files: Vec<PathBuf> =
        fs::read_dir(fixtures()).expect("fixtures").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    let mut paths = 0;
    for file in files {
        let said = fixture(&file);
        let Some(path) = said["path"].as_str() else { continue };
        let path = ids.iter().fold(path.to_owned(), |path, (name, id)| path.replace(name, id.as_str().expect("an id")));
        let answer = get(web.api(), &path);
        assert!(answer.status == 200 && answer.has("content-type: application/json"), "{path}: {answer:?}");
        differences(&path, &said["answer"], &answer.json(), &mut faults);
        paths += 1;
    }
    assert_eq!((faults, paths), (Vec::new(), 20));
    let head = request(web.api(), "HEAD", "/api/v1/streams", "");
    assert!(head.status == 200 && head.has("content-type: application/json"), "{head:?}");
    publishers.into_iter().for_each(crate::media::Running::kill);
}

/// The exporter's metrics that are SRS's, with their types, labels and units.
#[test]
fn the_exporter_has_srs_s_metrics() {
    if !have("ffmpeg") {
        return;
    }
    let (web, publishers, _player, _by_http) = busy_server();
    let text = get(web.exporter(), "/metrics").text();
    for (name, said) in fixture(&fixtures().join("metrics.json")).as_object().expect("metrics") {
        let kind = said["type"].as_str().expect("a type");
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}: {text}");
        let line =
            text.lines().find(|line| line.split(['{', ' ']).next() == Some(name)).unwrap_or_else(|| panic!("{name}"));
        let labels = said["labels"].as_array().expect("labels").iter().map(|label| label.as_str().expect("a name"));
        for label in labels {
            assert!(
                line.contains(&format!("{{{label}=\"")) || line.contains(&format!(",{label}=\"")),
                "{label}: {line}"
            );
        }
        let value: f64 = line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a value");
        assert!(is_within(said["value"].as_str().expect("a range"), value), "{said}: {line}");
    }
    assert!(text.contains("label=\"box-7\",tag=\"north \\\"1\\\"\"} 1"), "{text}");
    publishers.into_iter().for_each(crate::media::Running::kill);
}

/// What goes wrong is told by `code` with status 200, and by HTTP's status to who asks for that.
#[test]
fn errors_are_srs_s_unless_statuses_are_asked_for() {
    let web = Web { server: Server::start(&crate::web::config("", "raw_api { enabled on; }", "")) };
    for said in fixture(&fixtures().join("errors.json")).as_array().expect("a list") {
        let (method, path) = said["ask"].as_str().and_then(|ask| ask.split_once(' ')).expect("a method and a path");
        let bearer = web.server.bearer();
        let answer = request(web.api(), method, path, &format!("Content-Length: 0\r\n{bearer}"));
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status(&said["status"]), &said["code"]),
            "{said}: {answer:?}"
        );
        let fields = format!("Accept: application/problem+json\r\nContent-Length: 0\r\n{bearer}");
        let answer = request(web.api(), method, path, &fields);
        assert_eq!(answer.status, status(&said["true_status"]), "{said}: {answer:?}");
        let kind = if matches!(answer.status, 200 | 405) { "json" } else { "problem+json" };
        assert!(answer.has(&format!("content-type: application/{kind}")), "{said}: {answer:?}");
    }
    let to = request(web.api(), "GET", "/api/v1/tests/redirects?a=b", "");
    assert!(to.status == 301 && to.has("location: /api/v1/tests/errors?a=b"), "{to:?}");
    let all = Web { server: Server::start(&crate::web::config("", "crossdomain on;", "")) };
    for path in ["/api/v1/streams", "/api/v1/nothing", "/"] {
        let answer = request(all.api(), "OPTIONS", path, "Origin: http://x\r\n");
        assert!(answer.status == 200 && answer.has("access-control-allow-origin: *"), "{path}: {answer:?}");
    }
}

fn status(value: &Value) -> u16 {
    u16::try_from(value.as_u64().expect("a status")).expect("a status")
}

/// SRS's console asks by scripts (JSONP), for a client's end too; other sites' pages may not, unless the API is theirs.
#[test]
fn the_console_s_scripts_are_answered() {
    let web = Web::start("");
    let own = format!("Sec-Fetch-Site: same-origin\r\n{}", web.server.bearer());
    let script = |path: &str| request(web.api(), "GET", path, &own);
    let answer = script("/api/v1/versions?callback=angular.callbacks._0");
    assert!(answer.status == 200 && answer.has("content-type: text/javascript; charset=utf-8"), "{answer:?}");
    let text = answer.text();
    let inner = text.strip_prefix("angular.callbacks._0(").and_then(|rest| rest.strip_suffix(')')).expect("a call");
    assert_eq!(serde_json::from_str::<Value>(inner).expect("JSON")["code"], 0);
    let gone = script("/api/v1/clients/0-1?callback=f&method=DELETE").text();
    assert!(gone.starts_with("f({") && gone.contains("2049"), "{gone}");
    assert_eq!(script("/api/v1/versions?callback=alert(1)//").status, 400);
    for fields in ["", "Sec-Fetch-Site: none\r\n", "Referer: http://elsewhere/\r\n"] {
        let plain = request(web.api(), "GET", "/api/v1/versions?callback=f", fields);
        assert!(plain.text().starts_with('{'), "{plain:?}");
    }
    let player = Peer::play(web.server.address(), "live", "waiting");
    let id = eventually("a client", || Some(web.ask("/api/v1/clients")["clients"][0]["id"].as_str()?.to_owned()));
    assert!(script(&format!("/api/v1/clients/{id}?callback=f&method=DELETE")).text().contains("\"code\":0"));
    web.server.wait_for_log("an operator has disconnected it", 1);
    drop(player);
}

/// More clients than a shard is asked for at once, in one list and in pages of any size.
#[test]
fn a_list_has_no_ceiling() {
    let web = Web::shards(1, "");
    let _players: Vec<Peer> = (0..600).map(|_| Peer::play(web.server.address(), "live", "s")).collect();
    let ids = |query: &str| -> Vec<String> {
        let answer = web.ask(&format!("/api/v1/clients{query}"));
        answer["clients"].as_array().expect("a list").iter().map(|client| client["id"].to_string()).collect()
    };
    let all = eventually("all of them", || Some(ids("?count=100000")).filter(|all| all.len() == 600));
    assert_eq!(ids("?start=7&count=555"), all[7..562]);
    assert_eq!((ids("?start=499&count=600").len(), ids("?start=600&count=600").len()), (101, 0));
}
