use super::*;
use crate::{config::HookUrl, control::ClientId, proto::http::url::HttpUrl};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Reads one request; returns its body.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if Some(body.len()) == length {
            return Some(body.to_owned());
        }
    }
}

/// A server, what it has been told, and how many connections it has had.
struct Server {
    url: HookUrl,
    told: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    /// `answer` makes an answer of a body; `None` never answers.
    fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = Arc::new(HttpUrl::read(&format!("http://{address}/hook?token=secret")).unwrap());
        let server = Self { url, told: Arc::default(), connections: Arc::default() };
        let (told, connections, answer) = (Arc::clone(&server.told), Arc::clone(&server.connections), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (told, answer) = (Arc::clone(&told), Arc::clone(&answer));
                std::thread::spawn(move || {
                    while let Some(body) = read_request(&mut stream) {
                        let reply = answer(&body);
                        told.lock().unwrap().push(body);
                        match reply {
                            Some(reply) => {
                                drop(stream.write_all(reply.as_bytes()));
                                if reply.ends_with('-') {
                                    return;
                                }
                            }
                            None => std::thread::sleep(Duration::from_secs(100)),
                        }
                    }
                });
            }
        });
        server
    }

    fn allowing() -> Self {
        Self::start(|_| Some(answer("0")))
    }

    fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn event(action: &'static str, client: u64, urls: &[&HookUrl]) -> Event {
    let mut body = Body::default();
    body.add("event", format!("{action} {client}"));
    Event {
        action,
        urls: urls.iter().map(|url| HookUrl::clone(url)).collect(),
        timeout: Duration::from_millis(500),
        fail_open: false,
        trust: None,
        client: ClientId { shard: 0, token: client },
        publishes: None,
        body,
    }
}

fn body(action: &str, client: u64) -> String {
    format!("{{\"event\":\"{action} {client}\"}}")
}

fn dropped(hooks: &Hooks) -> u64 {
    hooks.counts().map(|count| count.dropped).sum()
}

#[test]
fn answers_decide() {
    let hooks = Hooks::default();
    let ask = |urls: &[&HookUrl], fail_open| {
        hooks.ask(Event { fail_open, ..event("on_play", 1, urls) }).recv_blocking().unwrap()
    };
    let server = |reply: &str| {
        let reply = reply.to_owned();
        Server::start(move |_| Some(reply.clone()))
    };
    let (good, data) = (server(&answer("0")), server(&answer("{\"code\": 0, \"data\": 1}")));
    assert_eq!(ask(&[&good.url, &data.url], false), Verdict::Allowed(Value::from(1)));
    assert_eq!(good.told(), [body("on_play", 1)]);
    let refused = Verdict::Refused("the hook answers 1".to_owned());
    assert_eq!(ask(&[&good.url, &server(&answer("1")).url], true), refused);
    let no_answers = [
        server("HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\n0").url,
        server("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 1\r\n\r\n0").url,
        server(&answer(&"0".repeat(10 << 20))).url,
        server("garbage\r\n\r\n").url,
        Server::start(|_| None).url,
        Arc::new(HttpUrl::read("http://127.0.0.1:1/").unwrap()),
        Arc::new(HttpUrl::read("http://no.such.host.invalid/").unwrap()),
    ];
    for url in &no_answers {
        let none = ask(&[url], false);
        assert!(matches!(&none, Verdict::Refused(why) if why.contains("no answer")), "{url}: {none:?}");
        assert_eq!(ask(&[url], true), Verdict::Allowed(Value::Null), "{url}");
    }
    let failed: u64 = hooks.counts().map(|count| count.failed).sum();
    assert_eq!((failed, dropped(&hooks)), (2 * no_answers.len() as u64, 0));
    gives_all_back(&hooks);
}

/// What a verdict leaves is given back a moment after it.
fn gives_all_back(hooks: &Hooks) {
    let start = Instant::now();
    while hooks.waiting_bytes() != (0, 0) {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", hooks.waiting_bytes());
        std::thread::sleep(LOOK);
    }
}

/// Hundreds of questions and notifications to a URL that hangs are in the way of no other URL, and of no question to
/// the same server.
#[test]
fn what_hangs_holds_nobody_else_up() {
    let hooks = Hooks::default();
    let server = Server::start(|body| (!body.contains("hang")).then(|| answer("0")));
    let slow = Arc::new(HttpUrl { target: "/slow".to_owned(), ..HttpUrl::clone(&server.url) });
    let start = Instant::now();
    let hang = |action, client| {
        let mut event = event(action, client, &[&slow]);
        event.body.add("hang", "");
        event.timeout = Duration::from_secs(3);
        event
    };
    let waiting: Vec<_> = (0..300).map(|client| hooks.ask(hang("on_play", client))).collect();
    (300..600).for_each(|client| hooks.tell(hang("on_stop", client)));
    for client in 1000..1020 {
        let verdict = hooks.ask(event("on_publish", client, &[&server.url])).recv_blocking().unwrap();
        assert_eq!(verdict, Verdict::Allowed(Value::Null));
        hooks.tell(event("on_unpublish", client, &[&server.url]));
    }
    assert!(start.elapsed() < Duration::from_millis(2500), "{:?}", start.elapsed());
    for verdict in waiting {
        assert!(matches!(verdict.recv_blocking().unwrap(), Verdict::Refused(_)));
    }
    assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
    let told = || (1000..1020).all(|client| server.told().contains(&body("on_unpublish", client)));
    while !told() {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", server.told());
        std::thread::sleep(LOOK);
    }
}

/// What waits is bounded in bytes, counted where it is too much, and given back.
#[test]
fn what_waits_is_bounded() {
    let hooks = Hooks::default();
    let hangs = Server::start(|_| None);
    let large = |action, client| {
        let mut event = event(action, client, &[&hangs.url]);
        event.body.add("tcUrl", "x".repeat(1 << 20));
        event
    };
    let asked: Vec<_> = (0..100).map(|client| hooks.ask(large("on_play", client))).collect();
    (0..100).for_each(|client| hooks.tell(large("on_stop", client)));
    assert!(asked.iter().filter(|verdict| !verdict.is_empty()).count() >= 68);
    let (questions, notices) = hooks.waiting_bytes();
    assert!(questions <= 32 << 20 && notices <= 64 << 20, "{questions} {notices}");
    let counts: Vec<_> = hooks.counts().filter(|count| count.dropped > 0).collect();
    assert_eq!(counts.iter().map(|count| count.action).collect::<Vec<_>>(), ["on_play", "on_stop"]);
    // On a slow machine some of the first are over before the last come.
    assert!(counts.iter().all(|count| count.dropped > 0), "{counts:?}");
    let others = Server::allowing();
    let verdict = hooks.ask(event("on_play", 1, &[&others.url])).recv_blocking().unwrap();
    assert_eq!(verdict, Verdict::Allowed(Value::Null));
    for verdict in asked {
        assert!(matches!(verdict.recv_blocking().unwrap(), Verdict::Refused(_)));
    }
    let start = Instant::now();
    while hooks.waiting_bytes().0 > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", hooks.waiting_bytes());
        std::thread::sleep(LOOK);
    }
}

/// A server that is away, or overloaded, is told when it is back: everything, once, in each client's order.
#[test]
fn notifications_arrive_when_the_server_is_back() {
    let hooks = Hooks::default();
    let calls = AtomicUsize::new(0);
    let server = Server::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        0..3 => Some("HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n".to_owned()),
        // It goes away in the middle of an answer.
        3 => Some("HTTP/1.1 200 OK\r\nContent-".to_owned()),
        _ => Some(answer("0")),
    });
    for action in ["on_stop", "on_unpublish", "on_close"] {
        (0..100).for_each(|client| hooks.tell(event(action, client, &[&server.url])));
    }
    assert!(hooks.flush(Duration::from_secs(30)));
    assert_eq!(dropped(&hooks), 0);
    for client in 0..100 {
        let own: Vec<_> = server.told().into_iter().filter(|body| body.contains(&format!(" {client}\""))).collect();
        let mut once = own.clone();
        once.dedup();
        assert_eq!(once, ["on_stop", "on_unpublish", "on_close"].map(|action| body(action, client)), "{own:?}");
    }
}

/// A question comes behind its client's notifications, and behind the end of the publish before, but not behind others'.
#[test]
fn questions_come_behind_what_was_before() {
    let hooks = Hooks::default();
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(5));
        Some(answer("0"))
    });
    (0..1000).for_each(|client| hooks.tell(event("on_stop", client, &[&server.url])));
    let publishes = Some("v/live/s".to_owned());
    hooks.tell(Event { publishes: publishes.clone(), ..event("on_unpublish", 2000, &[&server.url]) });
    let question = Event { publishes, timeout: Duration::from_secs(10), ..event("on_publish", 999, &[&server.url]) };
    let verdict = hooks.ask(question).recv_blocking().unwrap();
    assert_eq!(verdict, Verdict::Allowed(Value::Null));
    let told = server.told();
    let at = |body: String| told.iter().position(|other| *other == body);
    let publish = at(body("on_publish", 999)).unwrap();
    assert!(at(body("on_stop", 999)).is_some_and(|at| at < publish), "{told:?}");
    assert!(at(body("on_unpublish", 2000)).is_some_and(|at| at < publish), "{told:?}");
    assert!(told.len() < 500, "{} were told before", told.len());
}

/// Connections are used again, and one that the server has closed costs nothing.
#[test]
fn connections_are_reused() {
    let hooks = Hooks::default();
    let server = Server::allowing();
    for client in 0..50 {
        let verdict = hooks.ask(event("on_play", client, &[&server.url])).recv_blocking().unwrap();
        assert_eq!(verdict, Verdict::Allowed(Value::Null));
    }
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", closing.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in closing.incoming() {
            let mut stream = stream.unwrap();
            read_request(&mut stream);
            drop(stream.write_all(answer("0").as_bytes()));
        }
    });
    let url = Arc::new(HttpUrl::read(&url).unwrap());
    for client in 0..20 {
        let verdict = hooks.ask(event("on_play", client, &[&url])).recv_blocking().unwrap();
        assert_eq!(verdict, Verdict::Allowed(Value::Null), "{client}");
    }
}
