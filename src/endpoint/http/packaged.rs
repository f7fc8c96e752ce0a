//! Playlists, segments and parts by HTTP/1: a request at a time.

use super::{
    HttpSession, State,
    answers::{AWAIT_MS_MAX, Body, Packaged, Reply, Step},
};
use crate::{
    config::{Config, Proxies},
    core::port::{CloseReason, Context, Output},
    proto::http::Head,
};
use bytes::Bytes;
use std::{fmt::Write, sync::Arc};

impl HttpSession {
    /// Answers a request for something packaged; tells whether it is one.
    pub(super) fn packaged(&mut self, config: &Config, head: &Head, context: &Context<'_>) -> bool {
        let Some((asked, step)) = Packaged::read(config, head, context) else { return false };
        self.input.drain(..head.bytes);
        self.position += head.bytes as u64;
        (self.requested, self.heard_ms) = (true, context.now_ms);
        self.crossdomain = config.http.crossdomain;
        self.keep_alive = head.keep_alive;
        self.referer.clone_from(&head.referer);
        self.asked = Some(Box::new(asked));
        if config.trusted_proxies != Proxies::default() {
            self.queue.push(Output::For(head.forwarded_for.clone()));
        }
        self.take(step, context.now_ms + AWAIT_MS_MAX, context);
        true
    }

    /// What was waited for has changed.
    pub(super) fn go_on(&mut self, until_ms: u64, context: &Context<'_>) {
        if !self.grow(context) {
            self.answer(until_ms, context);
        }
    }

    /// What was given is sent.
    pub(super) fn sent(&mut self, context: &Context<'_>) {
        if !self.grow(context) {
            self.end_answer(context);
        }
    }

    /// The visit may be.
    pub(super) fn allowed(&mut self, context: &Context<'_>) {
        self.answer(context.now_ms + AWAIT_MS_MAX, context);
    }

    /// What is waited for has not come.
    pub(super) fn give_up(&mut self, context: &Context<'_>) {
        if self.growing.take().is_some() {
            // Only the connection's end can say that this is not all.
            self.queue.push(Output::Leave(CloseReason::ResponseEnded));
            return;
        }
        self.refuse(Reply::late(), context);
    }

    /// The answer is on its way: the next request may come, or is there.
    pub(super) fn end_answer(&mut self, context: &Context<'_>) {
        self.asked = None;
        self.state = State::Head;
        self.heard_ms = context.now_ms;
        if !self.keep_alive {
            self.queue.push(Output::Leave(CloseReason::ResponseEnded));
        }
    }

    /// Answers the request at hand, if that can be by now.
    fn answer(&mut self, until_ms: u64, context: &Context<'_>) {
        if let Some(step) = self.asked.as_mut().map(|asked| asked.look(context)) {
            self.take(step, until_ms, context);
        }
    }

    fn take(&mut self, step: Step, until_ms: u64, context: &Context<'_>) {
        let Some(asked) = &mut self.asked else { return };
        self.queue.extend(asked.take_fetch());
        match step {
            Step::Reply(reply) => self.give(reply, context),
            Step::Later(shown, version) => {
                self.state = State::Awaiting(until_ms);
                self.queue.push(Output::Await(shown, version));
            }
            Step::Ask(visit, key) => match asked.question(0, visit, &key) {
                Some((question, tc_url)) => {
                    self.tc_url = tc_url;
                    self.state = State::Visiting;
                    self.queue.push(question);
                }
                None => self.refuse(Reply::refusal((404, "Not Found"), "no such stream"), context),
            },
        }
    }

    fn refuse(&mut self, reply: Reply, context: &Context<'_>) {
        if let Some(Step::Reply(reply)) = self.asked.as_ref().map(|asked| asked.dressed(reply)) {
            self.give(reply, context);
        }
    }

    fn give(&mut self, Reply { status, fields, body }: Reply, context: &Context<'_>) {
        let head_only = self.asked.as_ref().is_some_and(|asked| asked.head_only);
        let mut head = String::with_capacity(384);
        // A string takes whatever is written.
        _ = write!(head, "HTTP/1.1 {} {}\r\n", status.0, status.1);
        for (name, value) in fields {
            _ = write!(head, "{name}: {value}\r\n");
        }
        match &body {
            Body::None => {}
            Body::Whole(length, _) => _ = write!(head, "content-length: {length}\r\n"),
            Body::Growing(_) => head.push_str("transfer-encoding: chunked\r\n"),
        }
        let connection = if self.keep_alive { "keep-alive" } else { "close" };
        _ = write!(head, "connection: {connection}\r\n\r\n");
        self.output.extend_from_slice(head.as_bytes());
        match body {
            Body::Whole(length, chunks) if length > 0 && !head_only => self.send(chunks),
            Body::Growing(growing) if !head_only => {
                self.growing = Some((growing, 0));
                self.grow(context);
            }
            Body::None | Body::Whole(..) | Body::Growing(_) => self.end_answer(context),
        }
    }

    /// Sends what has come of a segment that is being made, or waits for more; tells whether there is one.
    fn grow(&mut self, context: &Context<'_>) -> bool {
        let Some((growing, seen)) = &mut self.growing else { return false };
        let (chunks, version, over) = growing.after(*seen);
        *seen += chunks.len();
        if chunks.is_empty() && !over {
            self.state = State::Awaiting(context.now_ms + AWAIT_MS_MAX);
            self.queue.push(Output::Await(Arc::clone(&growing.shown), version));
            return true;
        }
        let mut body = Vec::with_capacity(3 * chunks.len() + 1);
        for chunk in chunks {
            body.push(format!("{:x}\r\n", chunk.len()).into());
            body.extend([chunk, Bytes::from_static(b"\r\n")]);
        }
        if over {
            body.push(Bytes::from_static(b"0\r\n\r\n"));
            self.growing = None;
        }
        self.send(body);
        true
    }

    fn send(&mut self, chunks: Vec<Bytes>) {
        self.state = State::Sending;
        self.queue.push(Output::Body(chunks));
    }
}
