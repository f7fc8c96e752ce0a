//! A server process under test.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long an event may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value; fails the test after [`LIMIT`].
pub(crate) fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < until, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A field of a `status` in `/proc`.
pub(crate) fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A running server; it is stopped when dropped.
pub(crate) struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
    directory: TempDir,
}

impl Server {
    /// Starts with a configuration, all CPUs.
    pub(crate) fn start(config: &str) -> Self {
        Self::start_with(config, Command::new(env!("CARGO_BIN_EXE_corecast")))
    }

    /// Starts with variables of the environment.
    pub(crate) fn start_in(config: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corecast"));
        command.envs(variables.iter().copied());
        Self::start_with(config, command)
    }

    /// Starts with so many shards, whatever CPUs there are.
    pub(crate) fn shards(shards: usize, config: &str) -> Self {
        Self::start_in(config, &[("CORECAST_TEST_SHARDS", &shards.to_string())])
    }

    /// Starts with the inside of one vhost.
    pub(crate) fn vhost(inside: &str) -> Self {
        Self::start(&format!("listen 127.0.0.1:0; max_connections 6000; vhost __defaultVhost__ {{ {inside} }}"))
    }

    /// Writes the configuration anew, and waits until it is in force, or refused; returns what the log says
    /// of it.
    pub(crate) fn reload(&self, config: &str) -> String {
        fs::write(self.file("test.conf"), config).expect("a configuration");
        let before = self.log().len();
        self.signal("-HUP");
        eventually("a reload", || {
            let said = self.log().split_off(before);
            (said.contains("reload: done") || said.contains("nothing has changed")).then_some(said)
        })
    }

    /// One vhost with its defaults on a free port.
    pub(crate) fn plain() -> Self {
        Self::start("listen 127.0.0.1:0; max_connections 6000; vhost __defaultVhost__ { }")
    }

    /// Starts through `command`, to which `-c FILE` is added.
    pub(crate) fn start_with(config: &str, mut command: Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("test.conf");
        fs::write(&file, config).expect("a configuration");
        command.arg("-c").arg(&file);
        Self::launch(directory, command)
    }

    /// Starts through `command` as it is.
    pub(crate) fn start_bare(command: Command) -> Self {
        Self::launch(tempfile::tempdir().expect("a directory"), command)
    }

    fn launch(directory: TempDir, mut command: Command) -> Self {
        let log = fs::File::create(directory.path().join("log")).expect("a log");
        let mut child = command
            .env("RUST_LOG", "warn,corecast=debug")
            .env("RUNTIME_DIRECTORY", directory.path())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the server");
        let stdout = BufReader::new(child.stdout.take().expect("stdout"));
        let mut addresses = Vec::new();
        for line in stdout.lines().map_while(Result::ok) {
            if let Some(listen) = line.strip_prefix("listen:") {
                let address = listen.split_whitespace().next().expect("an address");
                addresses.push(address.parse().expect("an address"));
            }
            if line.starts_with("play:") {
                break;
            }
        }
        let log = fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        assert!(!addresses.is_empty(), "the server does not start: {log}");
        Self { child, addresses, directory }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("rtmp://{}{path}", self.address())
    }

    /// The field that proves the API's own token, with its end; nothing if there is no token.
    pub(crate) fn bearer(&self) -> String {
        let files = fs::read_dir(self.directory.path()).expect("a directory").filter_map(Result::ok);
        let own = files.map(|file| file.path()).find(|path| path.extension().is_some_and(|end| end == "token"));
        let token = own.map(|path| fs::read_to_string(path).expect("a token"));
        token.map_or_else(String::new, |token| format!("Authorization: Bearer {}\r\n", token.trim()))
    }

    /// A path for a test's file, readable for everybody.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// Waits until `count` lines of the log contain `text`.
    pub(crate) fn wait_for_log(&self, text: &str, count: usize) {
        eventually(&format!("{count} x `{text}` in the log"), || {
            (self.log().lines().filter(|line| line.contains(text)).count() >= count).then_some(())
        });
    }

    pub(crate) fn rss_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// The most that it has ever been.
    fn rss_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        let line = field(&status, name).expect("a line of it");
        line.trim_end_matches("kB").trim().parse().expect("a number")
    }

    /// The names of its threads, and the CPUs that each may run on.
    pub(crate) fn threads(&self) -> Vec<(String, String)> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("/proc");
        let status = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
        status
            .filter_map(|text| {
                Some((field(&text, "Name:")?.to_owned(), field(&text, "Cpus_allowed_list:")?.to_owned()))
            })
            .collect()
    }

    /// Begins to watch its memory.
    pub(crate) fn growth(&self) -> Growth<'_> {
        // The peak is counted from here on.
        fs::write(format!("/proc/{}/clear_refs", self.pid()), "5").expect("/proc");
        Growth { server: self, before_kib: self.rss_kib() }
    }

    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("/proc").count()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid().to_string()]).status().expect("kill");
        assert!(sent.success());
    }

    /// Waits for the end; returns the exit code and the counters of the last log line.
    pub(crate) fn wait(mut self) -> (Option<i32>, Totals) {
        let code = eventually("the server's end", || self.child.try_wait().expect("wait")).code();
        let log = self.log();
        let line = log.lines().rev().find_map(|line| line.split_once("totals: ")).map_or("", |(_, totals)| totals);
        (code, Totals(line.to_owned()))
    }

    /// Stops with SIGTERM.
    pub(crate) fn stop(self) -> (Option<i32>, Totals) {
        self.signal("-TERM");
        self.wait()
    }
}

/// How much larger a server has become.
pub(crate) struct Growth<'a> {
    server: &'a Server,
    before_kib: u64,
}

impl Growth<'_> {
    /// At its peak.
    pub(crate) fn mib(&self) -> u64 {
        self.server.rss_peak_kib().saturating_sub(self.before_kib) >> 10
    }

    /// Fails if it has ever been `limit_mib` or more.
    pub(crate) fn is_below(&self, limit_mib: u64, what: &str) {
        let mib = self.mib();
        assert!(mib < limit_mib, "{what}: the server has grown by {mib} MiB, limit {limit_mib}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(30).collect();
            eprintln!("the server's last words, newest first:\n{}", tail.join("\n"));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The server's counters at its end.
pub(crate) struct Totals(String);

impl Totals {
    pub(crate) fn value(&self, name: &str) -> u64 {
        let found = self.0.split(' ').find_map(|item| item.strip_prefix(name)?.strip_prefix('='));
        found.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {}", self.0))
    }
}
