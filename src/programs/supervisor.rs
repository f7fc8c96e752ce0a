//! The thread that starts programs, looks after them and ends them.

use super::{
    Publish, Report, State, Word,
    command::{self, CommandLine, Redirect},
};
use crate::{
    config::{Config, Engine, ProgramLimits, Transcode},
    sys,
};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

/// How often processes are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// Pause before a program is started again: SRS's, and longer while it does not stay.
const PAUSE_MIN: Duration = Duration::from_secs(3);
const PAUSE_MAX: Duration = Duration::from_secs(48);
/// One that has run for so long has stayed.
const STAYED: Duration = Duration::from_secs(30);
/// From SIGTERM to SIGKILL.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a program belongs to.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Owner {
    Publish((usize, u64)),
    Ingest,
}

struct Program {
    owner: Owner,
    kind: &'static str,
    stream: String,
    name: String,
    line: CommandLine,
    child: Option<Child>,
    started: Instant,
    due: Instant,
    failures: u32,
    starts: u64,
    error: String,
    state: State,
}

#[derive(Default)]
struct Supervisor {
    limits: Option<ProgramLimits>,
    programs: Vec<Program>,
    /// Those of the moment.
    publishes: HashMap<(usize, u64), Publish>,
    /// Processes that were asked to end.
    ending: Vec<(Child, Instant)>,
    /// Outputs of transcodes that run, by publish: what comes back is not transcoded again.
    outputs: HashMap<(usize, u64), Vec<String>>,
}

/// Until it is told to stop, or nobody can tell it anything any more.
pub(super) fn run(words: &Receiver<Word>) {
    let mut supervisor = Supervisor::default();
    loop {
        let busy = !supervisor.programs.is_empty() || !supervisor.ending.is_empty();
        let word =
            if busy { words.recv_timeout(LOOK) } else { words.recv().map_err(|_| RecvTimeoutError::Disconnected) };
        match word {
            Ok(Word::Begins(publish)) => supervisor.begin(*publish),
            Ok(Word::Ends(id)) => supervisor.end_publish(id),
            Ok(Word::Configuration(config, port)) => supervisor.configure(&config, port),
            // Who asked may be gone.
            Ok(Word::Report(reply)) => drop(reply.try_send(supervisor.report())),
            Ok(Word::Stop(done)) => {
                supervisor.stop();
                done.send(()).ok();
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return supervisor.stop(),
        }
        supervisor.look();
    }
}

impl Supervisor {
    fn begin(&mut self, publish: Publish) {
        self.settle(&publish);
        self.publishes.insert(publish.id, publish);
    }

    /// Programs of a publish that are new begin, those that are no more or have changed end.
    fn settle(&mut self, publish: &Publish) {
        let stream = format!("{}/{}/{}", publish.vhost, publish.app, publish.stream);
        let mut wanted = Vec::new();
        for words in &publish.programs.exec {
            let name = words.first().cloned().unwrap_or_default();
            match command::exec(words, publish) {
                Ok(line) => wanted.push(("exec", name, line)),
                Err(why) => tracing::warn!(stream, program = name, "exec: {why}"),
            }
        }
        self.outputs.remove(&publish.id);
        let scopes = [String::new(), publish.app.clone(), format!("{}/{}", publish.app, publish.stream)];
        let transcodes = publish.programs.transcode.iter().filter(|transcode| scopes.contains(&transcode.scope));
        for Transcode { ffmpeg, engines, .. } in transcodes {
            for engine in engines {
                let line = self.transcode(publish, &stream, ffmpeg, engine);
                wanted.extend(line.map(|line| ("transcode", engine.name.clone(), line)));
            }
        }
        let owner = Owner::Publish(publish.id);
        let same = |program: &Program, (kind, _, line): &(&str, String, CommandLine)| {
            program.owner == owner && program.kind == *kind && program.line == *line
        };
        let new = |wanted: &(&str, String, CommandLine)| !self.programs.iter().any(|program| same(program, wanted));
        let (new, kept): (Vec<_>, Vec<_>) = wanted.into_iter().partition(new);
        self.end(|program| program.owner == owner && !kept.iter().any(|kept| same(program, kept)));
        for (kind, name, line) in new {
            self.add(owner.clone(), kind, stream.clone(), name, line);
        }
    }

    /// What transcodes a stream; `None` if nothing may.
    fn transcode(&mut self, publish: &Publish, stream: &str, ffmpeg: &str, engine: &Engine) -> Option<CommandLine> {
        let Publish { vhost, app, port, .. } = publish;
        let input = format!("rtmp://127.0.0.1:{port}/{app}/{}?vhost={vhost}", publish.stream);
        // The engine's name is the file's own.
        let output = command::fill(&engine.output.replace("[engine]", &engine.name), publish);
        let refused = |why: &str| {
            tracing::warn!(stream, "transcode: {why}");
            None
        };
        let output = match output {
            Ok(output) if command::names_are_plain(publish) => output,
            Ok(_) => return refused("the name is not put into a command"),
            Err(why) => return refused(&why),
        };
        let known = |output: &String| same_stream(output, &input);
        if known(&output) {
            return refused("its output is its input");
        }
        if self.outputs.values().flatten().any(known) {
            tracing::info!(stream, "transcode: it comes from a transcode: left alone");
            return None;
        }
        self.outputs.entry(publish.id).or_default().push(output.clone());
        let mut line = command::ffmpeg(ffmpeg, &[], &input, engine, &output);
        self.log_to(&mut line, &["encoder", vhost, app, &publish.stream, &engine.name]);
        Some(line)
    }

    /// Ingests that are new begin, those that are no more or have changed end.
    fn configure(&mut self, config: &Config, port: u16) {
        self.limits = Some(config.programs.clone());
        let mut wanted = Vec::new();
        for vhost in config.vhosts.iter().filter(|vhost| vhost.enabled) {
            for ingest in &vhost.programs.ingest {
                for engine in &ingest.engines {
                    let output = engine.output.replace("[vhost]", &vhost.name).replace("[port]", &port.to_string());
                    let output = output.replace("[engine]", &engine.name);
                    let copies = || Engine {
                        vcodec: "copy".into(),
                        acodec: "copy".into(),
                        oformat: "flv".into(),
                        ..Engine::default()
                    };
                    let copied = !engine.enabled || engine.vcodec.is_empty() || engine.acodec.is_empty();
                    let engine = if copied { copies() } else { Engine { oformat: "flv".into(), ..engine.clone() } };
                    let before = ["-loglevel", &config.programs.log_level, "-re"];
                    let before = if config.programs.log_level.is_empty() { &before[2..] } else { &before };
                    let mut line = command::ffmpeg(&ingest.ffmpeg, before, &ingest.input, &engine, &output);
                    let name = plain_url(&output).split('/').skip(3).collect::<Vec<_>>().join("-");
                    self.log_to(&mut line, &["ingest", &vhost.name, &name]);
                    wanted.push((format!("{}/{}", vhost.name, ingest.name), engine.name, line));
                }
            }
        }
        self.end(|program| {
            let same = |(_, _, line): &(String, String, CommandLine)| *line == program.line;
            program.owner == Owner::Ingest && !wanted.iter().any(same)
        });
        for (stream, name, line) in wanted {
            if !self.programs.iter().any(|program| program.owner == Owner::Ingest && program.line == line) {
                self.add(Owner::Ingest, "ingest", stream, name, line);
            }
        }
        for (id, mut publish) in std::mem::take(&mut self.publishes) {
            let vhost = config.vhosts.iter().find(|vhost| vhost.name == publish.vhost && vhost.enabled);
            let programs = vhost.map(|vhost| Arc::clone(&vhost.programs)).unwrap_or_default();
            if programs != publish.programs || port != publish.port {
                (publish.programs, publish.port) = (programs, port);
                self.settle(&publish);
            }
            self.publishes.insert(id, publish);
        }
    }

    fn end_publish(&mut self, id: (usize, u64)) {
        self.publishes.remove(&id);
        self.outputs.remove(&id);
        self.end(|program| program.owner == Owner::Publish(id));
    }

    /// Has ffmpeg's words go to a file, as SRS names it.
    fn log_to(&self, line: &mut CommandLine, parts: &[&str]) {
        let Some(directory) = self.limits.as_ref().and_then(|limits| limits.log_dir.as_ref()) else { return };
        let name = parts.iter().filter(|part| !part.is_empty()).map(|part| part.replace('/', "-"));
        let path: PathBuf = directory.join(format!("ffmpeg-{}.log", name.collect::<Vec<_>>().join("-")));
        line.stdout = Some(Redirect::File(path));
        line.stderr = Some(Redirect::Other);
    }

    fn add(&mut self, owner: Owner, kind: &'static str, stream: String, name: String, line: CommandLine) {
        let now = Instant::now();
        let new = Program {
            owner,
            kind,
            stream,
            name,
            line,
            child: None,
            started: now,
            due: now,
            failures: 0,
            starts: 0,
            error: String::new(),
            state: State::Waiting,
        };
        self.programs.push(new);
    }

    /// Starts who is due, and sees who has ended.
    fn look(&mut self) {
        let now = Instant::now();
        let most = self.limits.as_ref().map_or(usize::MAX, |limits| limits.count_max as usize);
        let mut running = self.programs.iter().filter(|program| program.child.is_some()).count() + self.ending.len();
        for program in &mut self.programs {
            match &mut program.child {
                Some(child) => match child.try_wait() {
                    Ok(None) => {}
                    ended => {
                        let how = ended.map_or_else(
                            |error| error.to_string(),
                            |how| how.map(|how| how.to_string()).unwrap_or_default(),
                        );
                        program.child = None;
                        running -= 1;
                        program.failed(now, how);
                    }
                },
                None if program.due > now => {}
                None if running >= most => {
                    if program.state != State::TooMany {
                        tracing::warn!(
                            stream = program.stream,
                            programs_max = most,
                            "{}: too many programs",
                            program.kind
                        );
                    }
                    (program.state, program.due) = (State::TooMany, now + PAUSE_MIN);
                }
                None => match start(&program.line) {
                    Ok(child) => {
                        tracing::info!(
                            stream = program.stream,
                            name = program.name,
                            pid = child.id(),
                            "{}: started",
                            program.kind
                        );
                        running += 1;
                        program.starts += 1;
                        (program.child, program.started, program.state) = (Some(child), now, State::Running);
                    }
                    Err(error) => program.failed(now, format!("{}: {error}", program.line.program)),
                },
            }
        }
        self.ending.retain_mut(|(child, until)| {
            if *until <= now {
                sys::end_group(child.id(), true);
            }
            matches!(child.try_wait(), Ok(None))
        });
    }

    /// Programs whose time is over are asked to end.
    fn end(&mut self, over: impl Fn(&Program) -> bool) {
        let until = Instant::now() + PATIENCE;
        for program in self.programs.extract_if(.., |program| over(program)) {
            if let Some(child) = program.child {
                tracing::info!(
                    stream = program.stream,
                    name = program.name,
                    pid = child.id(),
                    "{}: ended",
                    program.kind
                );
                sys::end_group(child.id(), false);
                self.ending.push((child, until));
            }
        }
    }

    fn stop(&mut self) {
        self.end(|_| true);
        while !self.ending.is_empty() {
            self.look();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn report(&self) -> Vec<Report> {
        let report = |program: &Program| Report {
            kind: program.kind,
            stream: program.stream.clone(),
            name: program.name.clone(),
            state: program.state,
            pid: program.child.as_ref().map_or(0, Child::id),
            restarts: program.starts.saturating_sub(1),
            error: program.error.clone(),
        };
        self.programs.iter().map(report).collect()
    }
}

impl Program {
    fn failed(&mut self, now: Instant, error: String) {
        if self.started + STAYED <= now && self.starts > 0 {
            self.failures = 0;
        }
        let pause = PAUSE_MAX.min(PAUSE_MIN * 2_u32.pow(self.failures.min(8)));
        let (kind, retry_s) = (self.kind, pause.as_secs());
        tracing::warn!(stream = self.stream, name = self.name, retry_s, "{kind}: {error}");
        self.failures += 1;
        (self.state, self.due, self.error) = (State::Waiting, now + pause, error);
    }
}

/// A URL without its query.
fn plain_url(url: &str) -> &str {
    url.split('?').next().unwrap_or(url)
}

/// Whether two URLs of RTMP mean the same stream of the same vhost.
fn same_stream(one: &str, other: &str) -> bool {
    let vhost = |url: &str| {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        query.split('&').find_map(|pair| pair.strip_prefix("vhost=").map(str::to_owned))
    };
    let plain = |url: &str| plain_url(url).replace("//localhost", "//127.0.0.1");
    plain(one) == plain(other) && vhost(one) == vhost(other)
}

fn start(line: &CommandLine) -> io::Result<Child> {
    let mut command = Command::new(&line.program);
    command.args(&line.arguments).stdin(Stdio::null());
    let open = |redirect: &Option<Redirect>| match redirect {
        Some(Redirect::File(path)) => {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.inspect_err(|error| tracing::warn!(%error, path = %path.display(), "programs: no log")).ok()
        }
        Some(Redirect::Other) | None => None,
    };
    let (stdout, stderr) = (open(&line.stdout), open(&line.stderr));
    let copy = |file: &Option<File>| file.as_ref().and_then(|file| file.try_clone().ok());
    let other = |redirect: &Option<Redirect>| *redirect == Some(Redirect::Other);
    let out = if other(&line.stdout) { copy(&stderr) } else { copy(&stdout) };
    let err = if other(&line.stderr) { copy(&stdout) } else { copy(&stderr) };
    command.stdout(out.map_or_else(Stdio::null, Stdio::from)).stderr(err.map_or_else(Stdio::null, Stdio::from));
    sys::bind_to_parent(&mut command);
    command.spawn()
}
