//! HLS, the player's side: a playlist, and the segments that it names, or parts where there is low latency; one request after
//! the other on one connection.

use bytes::{Buf, BytesMut};
use corecast::proto::http::HttpUrl;
use corecast::proto::http::client::ResponseError;
use std::{collections::VecDeque, time::Duration};

/// Most bytes of a response's head, and of a playlist.
const HEAD_BYTES_MAX: usize = 16 << 10;
const PLAYLIST_BYTES_MAX: usize = 1 << 20;
/// Where an ordinary player begins: so many segments before the end (RFC 8216 §6.3.3).
const BEHIND: usize = 3;

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Asked {
    Playlist,
    Piece,
}

/// A segment, or a part of one, by its number; the segment that is the end of its parts has the number behind them.
#[derive(Clone, Debug)]
struct Piece {
    place: (u64, u64),
    uri: String,
    independent: bool,
}

/// One player.
#[derive(Debug)]
pub(crate) struct HlsSession {
    authority: String,
    /// The playlist that is reloaded.
    playlist: String,
    output: Vec<u8>,
    wire: BytesMut,
    asked: Asked,
    /// Bytes of the present response that are still to come; `None` before its head.
    left: Option<usize>,
    text: Vec<u8>,
    /// What is still to be fetched, in order, and where what has been ends.
    pieces: VecDeque<Piece>,
    next: Option<(u64, u64)>,
    low_latency: bool,
    target: Duration,
    pause: Option<Duration>,
    fetched: bool,
}

impl HlsSession {
    pub(crate) fn start(url: &HttpUrl) -> Self {
        let mut session = Self {
            authority: url.authority.clone(),
            playlist: url.target.clone(),
            output: Vec::new(),
            wire: BytesMut::new(),
            asked: Asked::Playlist,
            left: None,
            text: Vec::new(),
            pieces: VecDeque::new(),
            next: None,
            low_latency: false,
            target: Duration::from_secs(1),
            pause: None,
            fetched: false,
        };
        session.ask(Asked::Playlist, &url.target);
        session
    }

    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// How long it waits before what it says next is sent.
    pub(crate) fn take_pause(&mut self) -> Option<Duration> {
        self.pause.take()
    }

    /// Whether a segment or a part has come.
    pub(crate) fn is_playing(&self) -> bool {
        self.fetched
    }

    fn ask(&mut self, what: Asked, target: &str) {
        self.asked = what;
        let request =
            format!("GET {target} HTTP/1.1\r\nHost: {}\r\nUser-Agent: corecast-bench\r\n\r\n", self.authority);
        self.output.extend_from_slice(request.as_bytes());
    }

    /// Takes what has come.
    ///
    /// # Errors
    /// Any [`ResponseError`].
    pub(crate) fn receive(&mut self, mut input: &[u8]) -> Result<(), ResponseError> {
        loop {
            let Some(left) = self.left else {
                self.wire.extend_from_slice(input);
                input = &[];
                let Some(end) = self.wire.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                    return if self.wire.len() > HEAD_BYTES_MAX { Err(ResponseError::Malformed) } else { Ok(()) };
                };
                self.left = Some(length(&self.wire[..end])?);
                self.wire.advance(end + 4);
                continue;
            };
            // What is of a piece is counted and not looked at.
            let held = std::mem::take(&mut self.wire);
            let from = if held.is_empty() { input } else { &held[..] };
            let now = left.min(from.len());
            if self.asked == Asked::Playlist {
                self.text.extend_from_slice(&from[..now]);
                if self.text.len() > PLAYLIST_BYTES_MAX {
                    return Err(ResponseError::Malformed);
                }
            }
            let rest = &from[now..];
            if left > now {
                self.left = Some(left - now);
                return Ok(());
            }
            self.left = None;
            let rest = BytesMut::from(rest);
            input = &[];
            self.ended()?;
            self.wire = rest;
            if self.wire.is_empty() {
                return Ok(());
            }
        }
    }

    /// A response is whole.
    fn ended(&mut self) -> Result<(), ResponseError> {
        match self.asked {
            Asked::Piece => self.fetched = true,
            Asked::Playlist => {
                let text = String::from_utf8(std::mem::take(&mut self.text)).map_err(|_| ResponseError::Malformed)?;
                if !text.starts_with("#EXTM3U") {
                    return Err(ResponseError::Malformed);
                }
                if text.contains("#EXT-X-STREAM-INF") {
                    let uri = text.lines().find(|line| !line.is_empty() && !line.starts_with('#'));
                    self.playlist = self.target_of(uri.ok_or(ResponseError::Malformed)?);
                    let playlist = self.playlist.clone();
                    self.ask(Asked::Playlist, &playlist);
                    return Ok(());
                }
                self.read(&text);
            }
        }
        if let Some(Piece { place, uri, .. }) = self.pieces.pop_front() {
            self.next = Some((place.0, place.1 + 1));
            let target = self.target_of(&uri);
            self.ask(Asked::Piece, &target);
            return Ok(());
        }
        let mut playlist = self.playlist.clone();
        match self.next.filter(|_| self.low_latency) {
            Some((sequence, part)) => {
                playlist += if playlist.contains('?') { "&" } else { "?" };
                playlist += &format!("_HLS_msn={sequence}&_HLS_part={part}");
            }
            None => self.pause = Some(self.target / 2),
        }
        self.ask(Asked::Playlist, &playlist);
        Ok(())
    }

    /// A URI of a playlist as the target of a request.
    fn target_of(&self, uri: &str) -> String {
        if uri.starts_with('/') {
            return uri.to_owned();
        }
        let path = self.playlist.split('?').next().unwrap_or_default();
        format!("{}/{uri}", path.rsplit_once('/').map_or("", |(directory, _)| directory))
    }

    /// Takes a media playlist: what of it is new.
    fn read(&mut self, text: &str) {
        let value = |tag: &str| text.lines().find_map(|line| line.strip_prefix(tag)?.trim().parse::<u64>().ok());
        self.low_latency = text.contains("CAN-BLOCK-RELOAD=YES");
        self.target = Duration::from_secs(value("#EXT-X-TARGETDURATION:").unwrap_or(1));
        let mut sequence = value("#EXT-X-MEDIA-SEQUENCE:").unwrap_or(0);
        let (mut part, mut pieces) = (0, Vec::new());
        for line in text.lines() {
            if let Some(attributes) = line.strip_prefix("#EXT-X-PART:") {
                let uri = attributes.split_once("URI=\"").and_then(|(_, rest)| rest.split('"').next());
                let independent = attributes.contains("INDEPENDENT=YES");
                pieces.extend(uri.map(|uri| Piece { place: (sequence, part), uri: uri.to_owned(), independent }));
                part += 1;
            } else if !line.is_empty() && !line.starts_with('#') {
                if !self.low_latency {
                    pieces.push(Piece { place: (sequence, 0), uri: line.to_owned(), independent: true });
                }
                (sequence, part) = (sequence + 1, 0);
            }
        }
        match self.next {
            Some(next) => pieces.retain(|piece| piece.place >= next),
            None => {
                let newest = pieces.iter().rposition(|piece| piece.independent).unwrap_or(0);
                let from = if self.low_latency { newest } else { pieces.len().saturating_sub(BEHIND) };
                pieces.drain(..from);
            }
        }
        if pieces.is_empty() {
            // A segment has ended with its last part: the next one is in the next.
            self.next = self.next.map(|next| next.max((sequence, part)));
        }
        self.pieces = pieces.into();
    }
}

/// A response's length, by its head.
fn length(head: &[u8]) -> Result<usize, ResponseError> {
    let text = std::str::from_utf8(head).map_err(|_| ResponseError::Malformed)?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split_once(' ')).map_or("", |(_, status)| status);
    if !status.starts_with("200") {
        return Err(ResponseError::Refused(status.to_owned()));
    }
    let mut fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, value)| value.trim().parse().ok()).ok_or(ResponseError::Malformed)
}
