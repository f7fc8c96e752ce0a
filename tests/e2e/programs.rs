//! exec, transcode and ingest: real programs beside streams, that end with them.

use crate::{
    hooks::Hook,
    live::Live,
    media::{Running, avc_aac, bounded, have, publish_on},
    peer::Peer,
    server::eventually,
    web::{self, Web},
};
use serde_json::Value;
use std::{fs, path::Path};

/// Prints what it is given and stays.
const STAYS: &str = r#"python3 -u -c "import sys,time; print(sys.argv[1]); time.sleep(300)""#;

fn programs(web: &Web) -> Vec<Value> {
    web.ask("/api/v1/programs")["programs"].as_array().expect("a list").clone()
}

fn pid(program: &Value) -> u64 {
    program["pid"].as_u64().expect("a number")
}

fn is_there(pid: u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn wait_for_state(web: &Web, state: &str) -> Value {
    eventually(state, || programs(web).into_iter().find(|program| program["state"] == state))
}

fn width(url: &str) -> String {
    let mut probe = bounded("ffprobe");
    probe.args(["-v", "error", "-select_streams", "v", "-show_entries", "stream=width", "-of", "csv=p=0", url]);
    Running::start(&mut probe).success().trim().to_owned()
}

/// The outcome is a stream of its own, of the size asked for; it is not transcoded again, and ends with its source.
#[test]
fn a_transcode_is_a_second_stream() {
    if !have("ffmpeg") {
        return;
    }
    let web = Web::start(
        "transcode { enabled on; ffmpeg ffmpeg; engine sd { enabled on; vcodec libx264; vpreset ultrafast; vprofile baseline; \
         vbitrate 200; vfps 25; vwidth 320; vheight 180; vparams { g 25; } acodec copy; \
         output rtmp://127.0.0.1:[port]/[app]/[stream]_[engine]?vhost=[vhost]; } engine off { enabled off; output rtmp://x; } }",
    );
    let publisher = publish_on(&avc_aac(), &web.server.url("/live/s"));
    web.live("s_sd");
    assert_eq!(width(&web.server.url("/live/s_sd")), "320");
    assert_eq!(width(&web.server.url("/live/s")), "640");
    let running = programs(&web);
    assert_eq!(running.len(), 1, "{running:?}");
    assert_eq!((&running[0]["kind"], &running[0]["stream"]), (&"transcode".into(), &"__defaultVhost__/live/s".into()));
    assert!(web.server.log().contains("it comes from a transcode"), "{}", web.server.log());
    publisher.kill();
    eventually("its end", || programs(&web).is_empty().then_some(()));
    eventually("the process's end", || (!is_there(pid(&running[0]))).then_some(()));
}

/// A file is published for as long as the server runs, again and again; a reload ends it.
#[test]
fn an_ingest_publishes_a_file() {
    if !have("ffmpeg") {
        return;
    }
    let ingest = |name: &str| {
        format!(
            "ingest a {{ enabled on; input {{ type file; url {}; }} ffmpeg ffmpeg; engine {{ enabled off; \
             output rtmp://127.0.0.1:[port]/live/{name}?vhost=[vhost]; }} }}",
            avc_aac().display()
        )
    };
    let web = Web::start(&ingest("first"));
    web.live("first");
    assert_eq!(width(&web.server.url("/live/first")), "640");
    eventually("a second time", || {
        programs(&web).iter().any(|program| program["restarts"].as_u64() > Some(0)).then_some(())
    });
    let said = web.server.reload(&web::config("", "", &ingest("second")));
    assert!(said.contains("reload: done"), "{said}");
    web.live("second");
    assert_eq!(programs(&web).len(), 1);
    web.server.reload(&web::config("", "", ""));
    eventually("no more", || programs(&web).is_empty().then_some(()));
}

/// A program gets the stream's name as one argument and nothing of the server's, and ends with the publish.
#[test]
fn exec_runs_as_long_as_the_publish() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("said");
    let web = Web::start(&format!("exec {{ enabled on; publish {STAYS} [stream] >{} 2>&1; }}", log.display()));
    let publisher = Live::start(web.server.address(), "live", "s-1", 40, 25, 0);
    let program = wait_for_state(&web, "running");
    eventually("its output", || fs::read_to_string(&log).ok().filter(|said| said == "s-1\n"));
    let open = fs::read_dir(format!("/proc/{}/fd", pid(&program))).expect("descriptors");
    let mut open: Vec<String> = open.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"], "no socket of the server's");
    drop(publisher);
    eventually("its end", || (programs(&web).is_empty() && !is_there(pid(&program))).then_some(()));
    // Names that are more than names start nothing.
    for name in [";rm -rf", "-c", "a b", "$(id)", "a|b"] {
        let before = web.server.log().matches("not put into a command").count()
            + web.server.log().matches("would become").count();
        let mut hostile = Peer::publish(web.server.address(), "live", name);
        hostile.settle();
        let said = |log: &str| log.matches("not put into a command").count() + log.matches("would become").count();
        eventually(name, || (said(&web.server.log()) > before).then_some(()));
        assert!(programs(&web).is_empty(), "{name}");
    }
}

/// A reload acts on streams that are there: what is new begins, what is gone ends, what is the same stays.
#[test]
fn a_reload_changes_the_programs_of_a_stream() {
    let web = Web::start("");
    let _live = Live::start(web.server.address(), "live", "s", 20, 25, 0);
    web.live("s");
    let vhost = |commands: &[&str]| {
        let commands: String = commands.iter().map(|name| format!("publish {STAYS} {name};")).collect();
        format!("exec {{ enabled on; {commands} }}")
    };
    let run = |commands: &[&str]| {
        web.server.reload(&web::config("", "", &vhost(commands)));
        let running = |program: &Value| program["state"] == "running";
        eventually("the programs", || {
            Some(programs(&web)).filter(|all| all.len() == commands.len() && all.iter().all(running))
        })
    };
    let first = run(&["a", "b"]);
    let second = run(&["b", "c"]);
    assert_eq!(pid(&first[1]), pid(&second[0]), "it stays");
    assert_ne!(pid(&first[0]), pid(&second[1]));
    eventually("its end", || (!is_there(pid(&first[0]))).then_some(()));
    assert!(run(&[]).is_empty());
    eventually("their end", || (!second.iter().any(|program| is_there(pid(program)))).then_some(()));
}

/// What cannot run, or does not stay, is started again after a while, and costs the stream nothing.
#[test]
fn programs_that_fail_harm_no_stream() {
    let web = Web::start("exec { enabled on; publish ./no/such/program; publish false; publish sleep 300; }");
    let publisher = Live::start(web.server.address(), "live", "s", 40, 25, 0);
    let mut player = Peer::play(web.server.address(), "live", "s");
    let failed = eventually("three", || {
        let all = programs(&web);
        let waiting = all.iter().filter(|program| program["state"] == "waiting" && program["error"] != "").count();
        (all.len() == 3 && waiting == 2 && all[2]["state"] == "running").then_some(all)
    });
    assert!(failed[0]["error"].as_str().expect("words").contains("./no/such/program"), "{failed:?}");
    assert!(failed[1]["error"].as_str().expect("words").contains("exit status: 1"), "{failed:?}");
    eventually("again", || (programs(&web)[1]["restarts"].as_u64() > Some(0)).then_some(()));
    player.expect_frames(50);
    drop(publisher);
    eventually("the end", || (!is_there(pid(&failed[2]))).then_some(()));
}

/// They are bounded in number, and none outlives the server, however that ends.
#[test]
fn programs_are_bounded_and_end_with_the_server() {
    for signal in ["-TERM", "-KILL"] {
        let web = Web {
            server: crate::server::Server::start(&web::config(
                "programs_max 2;",
                "",
                "exec { enabled on; publish sleep 300; }",
            )),
        };
        let publishers: Vec<Live> =
            (0..3).map(|number| Live::start(web.server.address(), "live", &format!("s{number}"), 40, 25, 0)).collect();
        wait_for_state(&web, "too_many");
        let running: Vec<u64> =
            programs(&web).iter().filter(|program| program["state"] == "running").map(pid).collect();
        assert_eq!(running.len(), 2);
        web.server.signal(signal);
        eventually("their end", || running.iter().all(|pid| !is_there(*pid)).then_some(()));
        drop(publishers);
    }
}

/// Heartbeats say what SRS's say, at once and again; a reload changes them, and a URL that hangs holds nobody up.
#[test]
fn heartbeats_are_srs_s() {
    let (hook, hangs) = (Hook::start(|_| Some("fine".to_owned())), Hook::start(|_| None));
    let beats = |url: &str| {
        format!(
            "server_id box; heartbeat {{ enabled on; interval 1; url {url}; device_id d-1; summaries on; ports on; }}"
        )
    };
    let web = Web { server: crate::server::Server::start(&web::config(&beats(&hook.url), "", "")) };
    let beat = eventually("two", || hook.all().get(1).cloned());
    let summary = &beat["summaries"]["data"];
    assert_eq!((&beat["device_id"], &beat["server"]), (&"d-1".into(), &"box".into()));
    assert!(beat["ip"].is_string() && beat["service"].is_string(), "{beat}");
    assert_eq!(beat["pid"].as_str().expect("text"), summary["self"]["pid"].to_string());
    assert_eq!(["rtmp", "http", "api"].map(|name| &beat[name]), [&serde_json::json!(["127.0.0.1:0"]); 3]);
    assert!(beat.get("srt").is_none() && beat.get("rtc").is_none(), "{beat}");
    web.server.reload(&web::config(&beats(&hangs.url), "", ""));
    eventually("that it fails", || web.server.log().contains("heartbeat: timeout").then_some(()));
    web.server.reload(&web::config("", "", ""));
    let before = hook.all().len();
    web.server.reload(&web::config(&beats(&hook.url), "", ""));
    eventually("more", || (hook.all().len() > before).then_some(()));
    eventually("well again", || web.ask("/api/v1/versions").is_object().then_some(()));
}
