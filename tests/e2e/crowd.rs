//! Many players of one stream, on every shard, and what each has got; a stream beside what a test does.

use crate::{
    live::Live,
    peer::{AVC_HEADER, Peer, command, status_code},
    web::Web,
};
use corecast::{mesh::home_of, proto::amf::Value};
use std::{net::SocketAddr, thread::JoinHandle, time::Duration};

/// How long a player waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Numbers of shards that tests of streams run with.
pub(crate) const SHARDS: [usize; 3] = [1, 2, 4];

/// What a publisher writes into its last frame.
const LAST: u32 = 4_000_000_000;

/// A stream's name that is at home on `home`, one of `shards`.
pub(crate) fn name_at(home: usize, shards: usize, stem: &str) -> String {
    let mut names = (0..).map(|number| format!("{stem}{number}"));
    names.find(|name| home_of(&format!("__defaultVhost__/live/{name}"), shards) == home).expect("one of them")
}

/// So many players of a stream, who ask for it at once; each has been told Play.Start.
pub(crate) fn at_once(server: SocketAddr, stream: &str, count: usize) -> Vec<Peer> {
    let mut players: Vec<Peer> = (0..count).map(|_| ready(server)).collect();
    let arguments = [Value::Null, Value::string(stream)];
    players.iter_mut().for_each(|player| player.command(1, "play", 0.0, &arguments));
    players.iter_mut().for_each(|player| drop(player.expect_status("NetStream.Play.Start")));
    players
}

/// A peer with a NetStream, number 1, that neither publishes nor plays.
pub(crate) fn ready(server: SocketAddr) -> Peer {
    let mut peer = Peer::connect(server, "live");
    peer.create_stream();
    peer
}

/// Players of a stream: `count`, and so many more that each shard has one.
pub(crate) fn everywhere(web: &Web, shards: usize, stream: &str, count: usize) -> Vec<Peer> {
    let mut players: Vec<Peer> = (0..count).map(|_| Peer::play(web.server.address(), "live", stream)).collect();
    loop {
        let taken = web.shards_of_players(stream, players.len());
        if (0..shards).all(|shard| taken.contains(&shard)) {
            return players;
        }
        assert!(players.len() < 400, "{taken:?}");
        players.extend((0..4).map(|_| Peer::play(web.server.address(), "live", stream)));
    }
}

/// What a player has got.
#[derive(Debug, Default, Eq, PartialEq)]
pub(crate) struct Got {
    /// What the publisher wrote into each video frame, in order.
    pub(crate) frames: Vec<u32>,
    /// Ends that it was told of.
    pub(crate) ends: usize,
    /// Whether each publish's sequence header came before its frames.
    pub(crate) headed: bool,
}

/// Reads until `ends` ends have been told, the server closes, or nothing comes for [`PATIENCE`].
pub(crate) fn taken(player: &mut Peer, ends: usize) -> Got {
    player.socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut got = Got { headed: true, ..Got::default() };
    let mut header = false;
    while got.ends < ends
        && let Ok(Some(message)) = player.try_next()
    {
        if let Some(command) = command(&message) {
            let ended = status_code(&command) == Some("NetStream.Play.UnpublishNotify");
            got.ends += usize::from(ended);
            header &= !ended;
        }
        match (message.type_id, &message.payload[..]) {
            (9, payload) if payload == AVC_HEADER => header = true,
            (9, [_, 1, _, _, _, a, b, c, d, ..]) => {
                got.headed &= header;
                got.frames.push(u32::from_be_bytes([*a, *b, *c, *d]));
            }
            _ => {}
        }
    }
    got
}

/// Lets all players take what there is, at once; says how many have not got `frames` and `ends`, and what the
/// first of those has.
pub(crate) fn all_take(players: &mut [Peer], frames: &[u32], ends: usize) -> Result<(), String> {
    let expected = Got { frames: frames.to_vec(), ends, headed: true };
    let got: Vec<Got> = std::thread::scope(|scope| {
        let threads: Vec<_> = players.iter_mut().map(|player| scope.spawn(move || taken(player, ends))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a player")).collect()
    });
    let wrong: Vec<&Got> = got.iter().filter(|got| **got != expected).collect();
    let Some(first) = wrong.first() else { return Ok(()) };
    let Got { frames: seen, ends: told, headed } = first;
    let (from, to) = (seen.first(), seen.last());
    Err(format!(
        "{} of {} players have not got {} frames and {ends} ends; the first has {} from {from:?} to {to:?}, {told} \
         ends, headers in place: {headed}",
        wrong.len(),
        got.len(),
        frames.len(),
        seen.len(),
    ))
}

/// A stream in real time beside what a test does, and a player that must miss nothing.
pub(crate) struct Beside {
    live: Live,
    player: JoinHandle<Got>,
}

impl Beside {
    pub(crate) fn start(server: SocketAddr) -> Self {
        let mut player = Peer::play(server, "live", "beside");
        let live = Live::start(server, "live", "beside", 40, 25, 1000);
        // The first frame, so that it plays before anything is done to the server.
        player.expect_frames(1);
        let player = std::thread::spawn(move || {
            let mut got = taken(&mut player, 1);
            got.frames.insert(0, 0);
            got
        });
        Self { live, player }
    }

    /// Ends it; every frame must have come.
    pub(crate) fn assert_whole(self) {
        let mut publisher = self.live.silence();
        publisher.send_frame(1, LAST, true, 0);
        drop(publisher);
        let got = self.player.join().expect("the player");
        let whole = got.frames.iter().enumerate().all(|(at, time)| *time == at as u32 * 40 || *time == LAST);
        assert!(
            whole && got.frames.last() == Some(&LAST) && got.ends == 1,
            "the stream beside: {} frames, the last is {:?}, {} ends",
            got.frames.len(),
            got.frames.last(),
            got.ends
        );
    }
}
