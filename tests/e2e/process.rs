//! What SRS's files say of the process: `work_dir`, `pid`, `asprocess`, `inotify_auto_reload`, `max_connections`.

use crate::server::{Server, eventually, field};
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn corecast(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.current_dir(directory).args(arguments).output().expect("corecast")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Relative paths count from `work_dir`, the file's own and its includes from where the server was started; a reload
/// finds them again. SRS's variable names the file.
#[test]
fn work_dir_is_entered() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    fs::create_dir_all(root.join("conf/conf")).expect("a directory");
    fs::create_dir(root.join("work")).expect("a directory");
    fs::write(root.join("conf/vhost.conf"), "vhost __defaultVhost__ { chunk_size 4096; }").expect("a file");
    // What stands beside the file comes second, as with SRS.
    fs::write(root.join("conf/conf/vhost.conf"), "nonsense;").expect("a file");
    let config = "listen 127.0.0.1:0; work_dir work; pid objs/x.pid; include conf/vhost.conf;";
    fs::write(root.join("conf/x.conf"), config).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.current_dir(root).env("SRS_CONFIG_FILE", "conf/x.conf").args(["-c", "nowhere.conf"]);
    let server = Server::start_bare(command);
    let pid = fs::read_to_string(root.join("work/objs/x.pid")).expect("a pid file");
    assert_eq!(pid.trim(), server.pid().to_string());
    let now = fs::read_link(format!("/proc/{}/cwd", server.pid())).expect("a directory");
    assert_eq!(now, root.join("work").canonicalize().expect("a directory"));
    fs::write(root.join("conf/vhost.conf"), "vhost __defaultVhost__ { chunk_size 5000; }").expect("a file");
    server.signal("-HUP");
    server.wait_for_log("chunk_size: 4096 -> 5000", 1);
}

/// A pid file that is another server's, another user's, or a link.
#[test]
fn pid_files_that_are_not_ours() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let config = |pid: &str| {
        let text = format!("listen 127.0.0.1:0; pid {}/{pid}; vhost __defaultVhost__ {{ }}", root.display());
        fs::write(root.join("x.conf"), &text).expect("a file");
        text
    };
    let _running = Server::start(&config("mine.pid"));
    let refused = |why: &str| {
        let output = corecast(root, &["-c", "x.conf"]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(why), "{why}: {said}");
    };
    config("mine.pid");
    refused("a server holds it");
    fs::write(root.join("target"), "x").expect("a file");
    symlink("target", root.join("link.pid")).expect("a link");
    config("link.pid");
    refused("it is a symbolic link");
    assert_eq!(fs::read_to_string(root.join("target")).expect("a file"), "x");
    fs::write(root.join("theirs.pid"), "1").expect("a file");
    // Only root can give a file away.
    if std::os::unix::fs::chown(root.join("theirs.pid"), Some(12_345), None).is_ok() {
        config("theirs.pid");
        refused("it belongs to user 12345");
        assert_eq!(fs::read_to_string(root.join("theirs.pid")).expect("a file"), "1");
    }
}

/// With asprocess the server ends when the shell that has started it does; without, it stays.
#[test]
fn asprocess_ends_with_the_parent() {
    for (asprocess, ends) in [("on", true), ("off", false)] {
        let directory = tempfile::tempdir().expect("a directory");
        let config = format!("listen 127.0.0.1:0; asprocess {asprocess}; pid x.pid; vhost __defaultVhost__ {{ }}");
        fs::write(directory.path().join("x.conf"), config).expect("a file");
        let script = format!("{} -c x.conf >log 2>&1 & echo $!; sleep 600", env!("CARGO_BIN_EXE_corecast"));
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(directory.path()).stdout(Stdio::piped()).process_group(0);
        let mut shell = shell.spawn().expect("bash");
        let pid: u32 =
            eventually("a pid file", || fs::read_to_string(directory.path().join("x.pid")).ok()?.trim().parse().ok());
        let log = || fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        eventually("the server", || log().contains("publish:").then_some(()));
        shell.kill().expect("kill");
        shell.wait().expect("wait");
        let gone = || match fs::read_to_string(format!("/proc/{pid}/status")) {
            Err(_) => true,
            Ok(status) => field(&status, "State:").is_some_and(|state| state.starts_with('Z')),
        };
        if ends {
            eventually("the end", || gone().then_some(()));
        } else {
            std::thread::sleep(Duration::from_secs(1));
            assert!(!gone(), "{}", log());
            drop(Command::new("kill").arg(pid.to_string()).status());
        }
        let group = format!("-{}", shell.id());
        drop(Command::new("kill").args(["--", &group]).stderr(Stdio::null()).status());
        shell.stdout.take().expect("stdout").read_to_string(&mut String::new()).expect("the pid");
    }
}

/// A file that an editor replaces is loaded once, and so is what it includes; a storm of writes costs a reload a second.
#[test]
fn files_that_change_are_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let vhost = |bytes: u32| format!("vhost __defaultVhost__ {{ chunk_size {bytes}; }}");
    fs::write(root.join("vhost.conf"), vhost(1000)).expect("a file");
    fs::write(root.join("x.conf"), "listen 127.0.0.1:0; inotify_auto_reload on; include vhost.conf;").expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.arg("-c").arg(root.join("x.conf"));
    let server = Server::start_bare(command);
    // As editors write: beside it, then in its place.
    fs::write(root.join("vhost.conf~"), vhost(2000)).expect("a file");
    fs::rename(root.join("vhost.conf~"), root.join("vhost.conf")).expect("a file");
    server.wait_for_log("chunk_size: 1000 -> 2000", 1);
    fs::write(root.join("vhost.conf"), vhost(3000)).expect("a file");
    server.wait_for_log("chunk_size: 2000 -> 3000", 1);
    std::thread::sleep(Duration::from_millis(1500));
    let reloads = || server.log().matches("reload: done").count();
    assert_eq!(reloads(), 2, "once each: {}", server.log());
    fs::write(root.join("other.conf"), "nothing of ours").expect("a file");
    let started = Instant::now();
    for bytes in 3001..3200 {
        fs::write(root.join("vhost.conf"), vhost(bytes)).expect("a file");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.wait_for_log("-> 3199", 1);
    let most = 2 + usize::try_from(started.elapsed().as_secs()).expect("seconds") + 2;
    assert!(reloads() <= most, "{} of {most}", reloads());
    // What is included by now is watched too, wherever it is.
    fs::create_dir(root.join("more")).expect("a directory");
    fs::write(root.join("more/new.conf"), vhost(4000)).expect("a file");
    fs::write(root.join("x.conf"), "listen 127.0.0.1:0; inotify_auto_reload on; include more/new.conf;")
        .expect("a file");
    server.wait_for_log("-> 4000", 1);
    std::thread::sleep(Duration::from_millis(2500));
    fs::write(root.join("more/new.conf"), vhost(5000)).expect("a file");
    server.wait_for_log("4000 -> 5000", 1);
}

/// So many events of other files, while none are looked at, that the kernel drops the one of the configuration.
#[test]
fn a_change_that_the_kernel_drops_is_loaded() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let config = |bytes: u32| {
        let text =
            format!("listen 127.0.0.1:0; inotify_auto_reload on; vhost __defaultVhost__ {{ chunk_size {bytes}; }}");
        fs::write(root.join("x.conf~"), text).expect("a file");
        fs::rename(root.join("x.conf~"), root.join("x.conf")).expect("a file");
    };
    config(1000);
    let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
    command.arg("-c").arg(root.join("x.conf"));
    let server = Server::start_bare(command);
    config(2000);
    // A pause between reloads begins here.
    server.wait_for_log("chunk_size: 1000 -> 2000", 1);
    let events_max = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let events_max: usize = events_max.trim().parse().expect("a number");
    // By turns, since the same event twice in a row is one.
    let mut others = ["a", "b"].map(|name| fs::File::create(root.join(name)).expect("a file"));
    for _ in 0..events_max {
        for other in &mut others {
            other.write_all(b"x").expect("a byte");
        }
    }
    config(3000);
    server.wait_for_log("chunk_size: 2000 -> 3000", 1);
}

/// More connections than descriptors: the limit is raised where it may be; else it is said, and they are fewer.
#[test]
fn descriptors_are_raised_or_missed_in_words() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = "listen 127.0.0.1:0; max_connections 100000; vhost __defaultVhost__ { }";
    fs::write(directory.path().join("x.conf"), config).expect("a file");
    let without = "exec setpriv --bounding-set -sys_resource --inh-caps -sys_resource";
    let is_root = field(&fs::read_to_string("/proc/self/status").expect("status"), "Uid:")
        .is_some_and(|uid| uid.starts_with('0'));
    let prefix = if is_root { without } else { "exec" };
    let script = format!("ulimit -n 4096; {prefix} {} -t -c x.conf", env!("CARGO_BIN_EXE_corecast"));
    let output = Command::new("bash").args(["-c", &script]).current_dir(directory.path()).output().expect("bash");
    let said = text(&output.stderr);
    assert!(
        output.status.success() && said.contains("x.conf:1:37") && said.contains("max_connections 100000 needs"),
        "{said}"
    );
    assert!(said.contains("at most; raise it (ulimit -n "), "{said}");
}
