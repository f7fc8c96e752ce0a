//! Files as SRS's users have them: old spellings, put where they stand today.

use super::{faults::Fault, place::Word, syntax::Directive};

/// Old spellings of a vhost: where each directive stands today, and how it is called there.
const MOVED: &[(&str, &str, &str)] = &[
    ("gop_cache", "play", "gop_cache"),
    ("gop_cache_max_frames", "play", "gop_cache_max_frames"),
    ("queue_length", "play", "queue_length"),
    ("time_jitter", "play", "time_jitter"),
    ("mix_correct", "play", "mix_correct"),
    ("atc", "play", "atc"),
    ("atc_auto", "play", "atc_auto"),
    ("mw_latency", "play", "mw_latency"),
    ("send_min_interval", "play", "send_min_interval"),
    ("reduce_sequence_header", "play", "reduce_sequence_header"),
    ("publish_1stpkt_timeout", "publish", "firstpkt_timeout"),
    ("publish_normal_timeout", "publish", "normal_timeout"),
    ("refer", "refer", "all"),
    ("refer_play", "refer", "play"),
    ("refer_publish", "refer", "publish"),
    ("forward", "forward", "destination"),
    ("mode", "cluster", "mode"),
    ("origin", "cluster", "origin"),
    ("token_traverse", "cluster", "token_traverse"),
    ("vhost", "cluster", "vhost"),
    ("debug_srs_upnode", "cluster", "debug_srs_upnode"),
];

/// Blocks that an old spelling in them switches on.
const SWITCHED_ON: &[&str] = &["refer", "forward"];

/// Puts directives of old files where they stand today, with a warning each.
pub(super) fn modernise(directives: &mut [Directive], warnings: &mut Vec<Fault>) {
    for directive in directives.iter_mut() {
        match (directive.name.text.as_str(), &mut directive.block) {
            ("http_stream", Some(_)) => {
                warn(&directive.name, "http_server", warnings);
                "http_server".clone_into(&mut directive.name.text);
            }
            ("vhost", Some(inside)) => modernise_vhost(inside, warnings),
            _ => {}
        }
    }
}

fn modernise_vhost(inside: &mut Vec<Directive>, warnings: &mut Vec<Fault>) {
    let (old, today): (Vec<_>, Vec<_>) = std::mem::take(inside).into_iter().partition(is_old);
    *inside = today;
    for mut directive in old {
        let name = directive.name.clone();
        match (name.text.as_str(), directive.block.take()) {
            ("http", block) => {
                warn(&name, "http_static", warnings);
                "http_static".clone_into(&mut directive.name.text);
                inside.push(Directive { block, ..directive });
            }
            ("mr", Some(settings)) => {
                warn(&name, "publish { mr; mr_latency }", warnings);
                for mut setting in settings {
                    let old = &setting.name.text;
                    setting.name.text = if old == "enabled" { "mr".to_owned() } else { format!("mr_{old}") };
                    put(inside, "publish", setting);
                }
            }
            (old, _) => {
                let Some((_, block, today)) = MOVED.iter().find(|(moved, ..)| *moved == old) else { continue };
                warn(&name, &format!("{block} {{ {today} }}"), warnings);
                (*today).clone_into(&mut directive.name.text);
                if SWITCHED_ON.contains(block) {
                    switch_on(inside, block, &name);
                }
                put(inside, block, directive);
            }
        }
    }
}

fn is_old(directive: &Directive) -> bool {
    let name = directive.name.text.as_str();
    match directive.block {
        Some(_) => matches!(name, "http" | "mr"),
        // `refer;` and `forward;` ask for nothing.
        None => MOVED.iter().any(|(old, ..)| *old == name),
    }
}

fn warn(name: &Word, today: &str, warnings: &mut Vec<Fault>) {
    let message = format!("`{}` is an old spelling of SRS's", name.text);
    warnings.push(Fault::new(name, message).help(format!("taken as `{today}`")));
}

fn switch_on(inside: &mut Vec<Directive>, block: &str, at: &Word) {
    let word = |text: &str| Word { text: text.to_owned(), place: at.place.clone() };
    let block = block_of(inside, block, at);
    if !block.iter().any(|directive| directive.name.text == "enabled") {
        block.push(Directive { name: word("enabled"), arguments: vec![word("on")], block: None });
    }
}

/// Puts a directive into a block, in place of what stands there: with SRS the old spelling counts.
fn put(inside: &mut Vec<Directive>, block: &str, directive: Directive) {
    let block = block_of(inside, block, &directive.name);
    block.retain(|other| other.name.text != directive.name.text);
    block.push(directive);
}

/// The inside of a block, which is made if it is not there.
fn block_of<'a>(inside: &'a mut Vec<Directive>, name: &str, at: &Word) -> &'a mut Vec<Directive> {
    let found = inside.iter().position(|directive| directive.name.text == name && directive.block.is_some());
    let index = found.unwrap_or_else(|| {
        let name = Word { text: name.to_owned(), place: at.place.clone() };
        inside.push(Directive { name, arguments: Vec::new(), block: Some(Vec::new()) });
        inside.len() - 1
    });
    inside[index].block.get_or_insert_default()
}
