//! What the server says to its peer: acceptances, refusals, notices.

use super::{Redirect, ServerSession, Settings};
use crate::proto::{
    amf::{Value, amf0},
    codec::CONNECT_FOURCCS,
    rtmp::{
        chunk_reader::Limits,
        command::{COMMAND_CSID, Command, Level, STREAM_COMMAND_CSID, status_object},
        message::{CONTROL_CSID, Control, type_id},
    },
};
use std::sync::Arc;

impl ServerSession {
    /// Accepts `connect` (conformance C1). The chunk size goes before the longer replies, which OBS
    /// depends on.
    pub fn accept_connect(&mut self) {
        let Settings { chunk_size, out_ack_size, .. } = self.settings;
        if out_ack_size > 0 {
            self.send_control(Control::WindowAckSize(out_ack_size));
        }
        self.send_control(Control::SetPeerBandwidth(PEER_BANDWIDTH_BYTES, 2));
        self.set_chunk_size(chunk_size);
        let mut properties = vec![
            (Arc::from("fmsVer"), Value::string("FMS/3,5,3,888")),
            (Arc::from("capabilities"), Value::Number(127.0)),
            (Arc::from("mode"), Value::Number(1.0)),
        ];
        let mut info = status_object(Level::Status, "NetConnection.Connect.Success", "Connection succeeded.");
        let object_encoding = self.connect.as_ref().map_or(0.0, |connect| connect.object_encoding);
        info.push((Arc::from("objectEncoding"), Value::Number(object_encoding)));
        if self.connect.as_ref().is_some_and(|connect| connect.enhanced) {
            properties.extend(enhanced_capabilities());
            info.extend(enhanced_capabilities());
        }
        self.send_result(self.connect_transaction, &[Value::Object(properties), Value::Object(info)]);
        let done = Command::encode("onBWDone", 0.0, &[Value::Null]);
        self.send(COMMAND_CSID, type_id::COMMAND_AMF0, 0, &done);
    }

    /// Refuses `connect`, or sends the peer elsewhere; close afterwards.
    pub fn reject_connect(&mut self, description: &str, redirect: Option<Redirect<'_>>) {
        let info = rejection(description, redirect);
        let body = Command::encode("_error", self.connect_transaction, &[Value::Null, info]);
        self.send(COMMAND_CSID, type_id::COMMAND_AMF0, 0, &body);
    }

    /// Sends the peer elsewhere after `connect`, at `publish` or `play`, as SRS does.
    pub fn redirect(&mut self, msid: u32, redirect: Redirect<'_>) {
        let info = rejection("redirected", Some(redirect));
        let body = Command::encode("onStatus", 0.0, &[Value::Null, info]);
        self.send(STREAM_COMMAND_CSID, type_id::COMMAND_AMF0, msid, &body);
    }

    /// Changes the size of the chunks that follow and says so, unless it is that already; a vhost may
    /// have its own.
    pub fn set_chunk_size(&mut self, bytes: u32) {
        if self.chunk_size != bytes {
            self.chunk_size = bytes;
            self.send_control(Control::SetChunkSize(bytes));
            self.writer.set_chunk_size(bytes);
        }
    }

    /// Accepts `publish`; media may be as long as RTMP can say from here on.
    pub fn accept_publish(&mut self, msid: u32) {
        self.inbound.chunks.set_limits(Limits::MEDIA);
        if let Some(stream) = self.net_streams.iter_mut().find(|stream| stream.msid == msid) {
            stream.publishing = true;
        }
        self.send_status(msid, Level::Status, "NetStream.Publish.Start", "Started publishing stream.");
    }

    /// Refuses `publish`: the name is taken, bad, or not allowed.
    pub fn reject_publish(&mut self, msid: u32, description: &str) {
        self.send_status(msid, Level::Error, "NetStream.Publish.BadName", description);
    }

    /// Accepts `play` (conformance C4); media follows behind the output.
    pub fn accept_play(&mut self, msid: u32) {
        self.send_control(Control::StreamBegin(msid));
        self.send_status(msid, Level::Status, "NetStream.Play.Reset", "Playing and resetting stream.");
        self.send_status(msid, Level::Status, "NetStream.Play.Start", "Started playing stream.");
        let access = [Value::string("|RtmpSampleAccess"), Value::Boolean(true), Value::Boolean(true)];
        self.send(STREAM_COMMAND_CSID, type_id::DATA_AMF0, msid, &amf0::encode_all(&access));
    }

    /// Refuses `play`; `code` is `NetStream.Play.StreamNotFound`, `NetStream.Play.Failed` ….
    pub fn reject_play(&mut self, msid: u32, code: &str, description: &str) {
        self.send_status(msid, Level::Error, code, description);
    }

    /// Confirms `pause` (conformance C5).
    pub fn notify_pause(&mut self, msid: u32, paused: bool) {
        let (code, description) = if paused {
            ("NetStream.Pause.Notify", "Paused stream.")
        } else {
            ("NetStream.Unpause.Notify", "Unpaused stream.")
        };
        self.send_status(msid, Level::Status, code, description);
        self.send_control(if paused { Control::StreamEof(msid) } else { Control::StreamBegin(msid) });
    }

    /// Tells a player that its stream has ended; it may wait for the next publish (conformance C9).
    pub fn notify_unpublish(&mut self, msid: u32) {
        self.send_status(msid, Level::Status, "NetStream.Play.UnpublishNotify", "Stream is unpublished.");
        self.send_control(Control::StreamEof(msid));
    }

    /// Tells a player that stayed that its stream is there again.
    pub fn notify_publish(&mut self, msid: u32) {
        self.send_control(Control::StreamBegin(msid));
        self.send_status(msid, Level::Status, "NetStream.Play.PublishNotify", "Stream is published.");
    }

    /// Asks the peer to connect anew when it can, if it understands that (E-RTMP v2, "Reconnect Request").
    pub fn request_reconnect(&mut self) {
        if !self.connect.as_ref().is_some_and(|connect| connect.reconnects) {
            return;
        }
        let info = status_object(Level::Status, "NetConnection.Connect.ReconnectRequest", "The server stops soon.");
        let body = Command::encode("onStatus", 0.0, &[Value::Null, Value::Object(info)]);
        self.send(COMMAND_CSID, type_id::COMMAND_AMF0, 0, &body);
    }

    /// Tells a player that the duration that it asked for is over.
    pub fn notify_play_end(&mut self, msid: u32) {
        self.send_status(msid, Level::Status, "NetStream.Play.Stop", "Stopped playing stream.");
        self.send_control(Control::StreamEof(msid));
    }

    pub(super) fn send_fc_status(&mut self, name: &str, code: &str, description: &str) {
        let info = Value::Object(status_object(Level::Status, code, description));
        let body = Command::encode(name, 0.0, &[Value::Null, info]);
        self.send(COMMAND_CSID, type_id::COMMAND_AMF0, 0, &body);
    }

    pub(super) fn send_status(&mut self, msid: u32, level: Level, code: &str, description: &str) {
        let mut info = status_object(level, code, description);
        info.push((Arc::from("clientid"), Value::string("corecast")));
        let body = Command::encode("onStatus", 0.0, &[Value::Null, Value::Object(info)]);
        self.send(STREAM_COMMAND_CSID, type_id::COMMAND_AMF0, msid, &body);
    }

    pub(super) fn send_result(&mut self, tid: f64, arguments: &[Value]) {
        let body = Command::encode("_result", tid, arguments);
        self.send(COMMAND_CSID, type_id::COMMAND_AMF0, 0, &body);
    }

    pub(super) fn send_control(&mut self, control: Control) {
        let (type_id, body) = control.encode();
        self.send(CONTROL_CSID, type_id, 0, &body);
    }

    pub(super) fn send(&mut self, csid: u32, type_id: u8, msid: u32, body: &[u8]) {
        self.writer.write(&mut self.out, csid, type_id, msid, 0, body);
    }
}

/// The peer's output window that Set Peer Bandwidth names; SRS's value.
const PEER_BANDWIDTH_BYTES: u32 = 2_500_000;

/// E-RTMP's capsEx that we have: Reconnect, Multitrack, ModEx, TimestampNanoOffset.
const CAPS_EX: f64 = 15.0;

/// E-RTMP's FourCcInfoMask bit: forwarded as it is.
const CAN_FORWARD: f64 = 4.0;

/// The fields that answer a peer that speaks Enhanced RTMP (conformance G1).
fn enhanced_capabilities() -> Vec<(Arc<str>, Value)> {
    let forward_all = || Value::object([("*", Value::Number(CAN_FORWARD))]);
    let list = CONNECT_FOURCCS.iter().map(|fourcc| Value::string(*fourcc)).collect();
    let Value::Object(fields) = Value::object([
        ("fourCcList", Value::StrictArray(list)),
        ("videoFourCcInfoMap", forward_all()),
        ("audioFourCcInfoMap", forward_all()),
        ("capsEx", Value::Number(CAPS_EX)),
        ("videoFunction", Value::Number(0.0)),
    ]) else {
        return Vec::new();
    };
    fields
}

fn rejection(description: &str, redirect: Option<Redirect<'_>>) -> Value {
    let mut info = status_object(Level::Error, "NetConnection.Connect.Rejected", description);
    if let Some(Redirect { tc_url, url }) = redirect {
        let ex = Value::object([
            ("code", Value::Number(302.0)),
            ("redirect", Value::string(tc_url)),
            ("redirect2", Value::string(url)),
        ]);
        info.push((Arc::from("ex"), ex));
    }
    Value::Object(info)
}
