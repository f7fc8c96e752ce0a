use super::*;
use crate::core::{
    audience::AtEnd,
    member,
    messages::Publisher,
    play::Play,
    publish::{Publish, Target},
    settings::stream_settings,
    testing::{Silent, SilentSink, insert, shard},
    token,
};

/// A shard with so many streams, each published, and players of them in turn; nobody is connected in fact.
fn crowd(streams: usize, players: usize) -> Shard<Silent> {
    let mut shard = shard();
    let vhost = std::sync::Arc::clone(&shard.shared().config().vhosts[0]);
    let settings = stream_settings(&vhost);
    let key = |number: usize| format!("__defaultVhost__/live/stream{number}");
    for number in 0..streams {
        let id = insert(&mut shard);
        let publisher = Publisher { shard: 0, connection: token(shard.serial, id), publish: 1 };
        let stream = shard.relay.publish(&key(number), settings, publisher).unwrap();
        let publish = Publish::new(1, 1, Target::Home(stream), key(number), 0, vhost.publish, AtEnd::default());
        shard.with(id, |connection| connection.publishes.push(publish));
    }
    for number in 0..players {
        let id = insert(&mut shard);
        let stream = shard.relay.open(&key(number % streams), settings);
        let replica = &mut shard.relay.stream_mut(stream).unwrap().replica;
        let subscription = replica.subscribe();
        replica.schedule.add(member(id, 1), replica.holds_from(&subscription, 0));
        let play = Play::new(1, stream, subscription, SilentSink);
        shard.with(id, |connection| connection.plays.push(play));
    }
    shard
}

/// Asks, and lets the shard answer in slices that are over as soon as they begin; returns how many there were.
fn slices<T>(server: &mut Shard<Silent>, call: impl FnOnce(async_channel::Sender<T>) -> Call) -> (T, usize) {
    let (reply, answer) = async_channel::bounded(1);
    server.answer(call(reply));
    let mut slices = 0;
    while server.survey.is_pending() {
        assert!(server.sleep_ms() == 0 && answer.is_empty());
        server.answer_until(Instant::now());
        slices += 1;
    }
    (answer.try_recv().unwrap(), slices)
}

/// However many streams and players there are, a slice looks at a few and the next one goes on.
#[test]
fn questions_are_answered_in_slices() {
    let mut server = crowd(300, 2000);
    let (report, looks) = slices(&mut server, Call::Report);
    assert!(looks >= 300 / BATCH + 2300 / BATCH, "{looks}");
    let mut keys: Vec<&str> = report.streams.iter().map(|stream| &*stream.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), report.streams.len(), report.connections), (300, 300, 2300));
    assert_eq!(report.streams.iter().map(|stream| stream.players).sum::<u64>(), 2000);
    assert!(report.streams.iter().all(|stream| stream.publish.is_some()));
    // Everybody who asks before the walk is over gets what comes of it; who has given up costs nothing.
    let ask = |server: &mut Shard<Silent>| {
        let (reply, answer) = async_channel::bounded(1);
        server.answer(Call::Report(reply));
        answer
    };
    drop(ask(&mut server));
    let first = ask(&mut server);
    server.answer_until(Instant::now());
    let second = ask(&mut server);
    for _ in 0..looks {
        server.answer_until(Instant::now());
    }
    assert_eq!((first.len(), second.len(), server.survey.is_pending()), (1, 1, false));
}

/// Pages that are asked for within a second share a walk; who has gone meanwhile is left out.
#[test]
fn pages_of_clients_share_a_walk() {
    let mut server = crowd(10, 2000);
    let page = |skip, count| move |reply| Call::Clients { skip, count, reply };
    let ((first, total), looks) = slices(&mut server, page(0, 10));
    assert!(looks >= 2000 / BATCH, "{looks}");
    assert_eq!((first.len(), total, first[9].publish), (10, 2010, true));
    server.connections.remove(11);
    let ((second, total), looks) = slices(&mut server, page(10, 10));
    assert_eq!((second.len(), total, looks), (9, 2010, 1));
    assert_eq!(slices(&mut server, page(2009, 10)).0.0.len(), 1);
    assert_eq!(slices(&mut server, page(5000, 10)).0.0.len(), 0);
}

/// A client that came in on this shard is found by its id at once; one that moved here is looked for.
#[test]
fn clients_are_found_by_their_ids() {
    let mut server = crowd(10, 2000);
    let id = |server: &Shard<Silent>, place: usize| server.connections[place].as_ref().unwrap().client;
    let client = |id| move |reply| Call::Client { id, reply };
    let here = id(&server, 1500);
    let (found, looks) = slices(&mut server, client(here));
    assert_eq!((found.unwrap().id, looks), (here.to_string(), 0));
    let moved = ClientId { shard: 1, token: here.token };
    assert!(slices(&mut server, client(moved)).0.is_none(), "another shard's");
    server.with(1999, |connection| connection.client = moved);
    let (found, looks) = slices(&mut server, client(moved));
    assert_eq!(found.unwrap().id, moved.to_string());
    assert!(looks >= 1999 / BATCH, "{looks}");
    assert!(slices(&mut server, |reply| Call::Kick { id: moved, reply }).0);
    assert!(server.connections[1999].as_ref().unwrap().closing.is_some());
    let stale = ClientId { shard: 0, token: here.token + (1 << 32) };
    assert!(slices(&mut server, client(stale)).0.is_none());
}
