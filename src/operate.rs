//! A running server and its operator: signals, reload, drain, what systemd is told.

use crate::{log::Logging, settings::Settings, token::TokenFile, watch::Watched};
use corecast::{
    config::{Config, Explanation, Service},
    glue::{Order, Server},
};
use crossbeam_channel::{Receiver, Sender};
use sd_notify::NotifyState;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1},
    iterator::Signals,
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How long hooks may take to be told of what has ended, before the process ends.
const HOOKS_LIMIT: Duration = Duration::from_secs(2);
/// How long shards may take to stop before the process ends without them.
const STOP_LIMIT: Duration = Duration::from_millis(700);
/// How often a drain looks who is still here.
const LOOK: Duration = Duration::from_millis(100);
/// Longer than anything is waited for.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// What is running.
pub(crate) struct Operation {
    pub(crate) server: Server,
    pub(crate) settings: Settings,
    pub(crate) explanation: Explanation,
    pub(crate) config: Config,
    pub(crate) logging: Logging,
    pub(crate) token: Option<TokenFile>,
    pub(crate) watching: Option<Watched>,
}

/// The signals that are obeyed, and how others can send them.
pub(crate) fn signals() -> std::io::Result<(Sender<i32>, Receiver<i32>)> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1])?;
    let (tell, told) = crossbeam_channel::unbounded();
    let ours = tell.clone();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // It fails if the main thread has ended already.
            if tell.send(signal).is_err() {
                return;
            }
        }
    })?;
    Ok((ours, told))
}

impl Operation {
    /// Runs until a signal says otherwise.
    ///
    /// # Errors
    /// The number of a shard that died.
    pub(crate) fn run(&mut self, signals: &Receiver<i32>) -> Result<(), usize> {
        notify(&[NotifyState::Ready]);
        loop {
            match self.server.next(signals, FOREVER)? {
                Order::None => {}
                Order::Reload(reply) => {
                    // Who asked may have given up.
                    drop(reply.try_send(self.reload()));
                }
                Order::Own(SIGHUP) => drop(self.reload()),
                Order::Own(SIGUSR1) => self.logging.reopen(),
                Order::Own(SIGQUIT) => return self.drain(signals),
                Order::Own(SIGTERM) if self.config.stop.forced => return self.drain(signals),
                Order::Own(_) => return self.stop(),
            }
        }
    }

    /// Writes the token that changes by the API need where there is no `auth`, and says where it is.
    pub(crate) fn keep_token(&mut self) {
        let api = &self.config.api;
        if !api.enabled || api.auth.is_some() {
            self.token = None;
            return;
        }
        if self.token.is_some() {
            return;
        }
        let listening = self.server.listening();
        let own =
            listening.iter().find(|(listen, _)| listen.service == Service::Api).map(|(_, address)| address.port());
        let Some(port) = own.or_else(|| api.shared.first().map(SocketAddr::port)) else { return };
        match TokenFile::write(self.server.api_token(), port) {
            Ok(file) => {
                let path = file.path().display();
                tracing::info!("API: what changes anything needs Authorization: Bearer TOKEN, from {path}");
                self.token = Some(file);
            }
            Err(error) => {
                tracing::warn!(
                    "API: nothing can be changed by it without auth: the token cannot be written: {error:#}"
                );
            }
        }
    }

    fn stop(&self) -> Result<(), usize> {
        notify(&[NotifyState::Stopping]);
        self.server.stop();
        self.server.wait(STOP_LIMIT)?;
        if !self.server.tell_hooks(HOOKS_LIMIT) {
            tracing::warn!("hooks: not everything could be told before the end");
        }
        Ok(())
    }

    /// Reads the configuration anew and brings it into force, or leaves everything as it is and says why. Returns
    /// the number of changes.
    fn reload(&mut self) -> Result<usize, String> {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => notify(&[NotifyState::Reloading, now]),
            Err(_) => notify(&[NotifyState::Reloading]),
        }
        let outcome = match self.settings.load() {
            Err(error) => {
                for line in error.to_string().lines() {
                    tracing::error!("reload: {line}");
                }
                tracing::error!("reload: nothing has changed");
                Err(error.to_string())
            }
            Ok(loaded) => match self.server.reload(loaded.config.clone()) {
                Err(error) => {
                    tracing::error!("reload: nothing has changed: {error}");
                    Err(error.to_string())
                }
                Ok(()) => {
                    for warning in loaded.warnings.to_string().lines() {
                        tracing::warn!("reload: {warning}");
                    }
                    let changes = loaded.explanation.changes_since(&self.explanation);
                    for change in &changes {
                        let value = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
                        let (before, now) = (value(&change.before), value(&change.now));
                        tracing::info!("reload: {}: {before} -> {now}, acts {}", change.what, change.acts);
                    }
                    tracing::info!("reload: done, {} changes", changes.len());
                    if let Some(watching) = &self.watching {
                        let files: Vec<PathBuf> =
                            loaded.files.iter().filter_map(|file| std::path::absolute(file).ok()).collect();
                        if let Err(error) = watching.set(&files) {
                            tracing::warn!(%error, "inotify_auto_reload: what is included now is not all watched");
                        }
                    }
                    (self.config, self.explanation) = (loaded.config, loaded.explanation);
                    self.keep_token();
                    Ok(changes.len())
                }
            },
        };
        notify(&[NotifyState::Ready]);
        outcome
    }

    /// SIGQUIT, as SRS has it: goes on for a moment, accepts no more, serves those who are here to their end
    /// within a limit, and lingers. Another SIGQUIT, SIGTERM or SIGINT ends it at once.
    fn drain(&self, signals: &Receiver<i32>) -> Result<(), usize> {
        let stop = self.config.stop;
        notify(&[NotifyState::Stopping]);
        let wait = |until: Instant, enough: &dyn Fn() -> bool| -> Result<bool, usize> {
            while Instant::now() < until && !enough() {
                let left = until.saturating_duration_since(Instant::now()).min(LOOK);
                if matches!(self.server.next(signals, left)?, Order::Own(SIGQUIT | SIGTERM | SIGINT)) {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let in_ms = |ms: u32| Instant::now() + Duration::from_millis(u64::from(ms));
        tracing::info!("drain: connections are accepted for {} ms more", stop.start_wait_ms);
        if wait(in_ms(stop.start_wait_ms), &|| false)? {
            return self.stop();
        }
        let here = self.server.connections();
        tracing::info!("drain: no more connections; {here} are here and have {} s", stop.drain_limit_s);
        self.server.drain();
        let limit = Instant::now() + Duration::from_secs(u64::from(stop.drain_limit_s));
        if wait(limit, &|| self.server.connections() == 0)? {
            return self.stop();
        }
        match self.server.connections() {
            0 => tracing::info!("drain: everybody has gone"),
            left => tracing::warn!("drain: {left} connections are closed: grace_drain_limit"),
        }
        wait(in_ms(stop.final_wait_ms), &|| self.server.connections() > 0)?;
        self.stop()
    }
}

/// Tells systemd, if it has started us.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "sd_notify");
    }
}
