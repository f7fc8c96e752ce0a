//! SRS's directives, each by what becomes of it here: it acts, is accepted with a line, or is refused by name because
//! its capability is not built yet. None is unknown.

use corecast::config::{Config, Input};
use std::collections::BTreeMap;

const TABLE: &str = include_str!("../seeds/srs-directives.txt");
/// Those of blocks that are not built; each capability that is lets this shrink.
const NOT_BUILT_MAX: usize = 87;

/// Faults and warnings of a directive in its block, which is switched on or not.
fn load(block: &str, line: &str, on: &str) -> (String, String) {
    let mut text = format!("{on} {line}");
    for (depth, name) in block.split(' ').enumerate().collect::<Vec<_>>().into_iter().rev().filter(|_| block != "-") {
        // What a block has of its own that makes it good.
        let rest = match name {
            "ingest" | "transcode" if depth == 1 => format!("{name} x"),
            "vhost" | "engine" => format!("{name} x"),
            other => other.to_owned(),
        };
        text = format!("{rest} {{ {text} }}");
    }
    let listen = if line.starts_with("listen") && matches!(block, "-" | "rtmp") { "" } else { "listen 1935;" };
    let text = format!("{listen} {text}");
    match Config::load(&Input { text: Some(("x.conf", &text)), ..Input::default() }) {
        Ok(loaded) => (String::new(), loaded.warnings.to_string()),
        Err(faults) => (faults.to_string(), String::new()),
    }
}

#[test]
fn every_directive_is_known() {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut unknown = Vec::new();
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let [block, name, value] = row.split(" | ").collect::<Vec<_>>()[..] else { panic!("{row}") };
        let line = format!("{name} {value};");
        let (faults, warnings) = load(block, &line, "");
        let state = if !faults.is_empty() {
            unknown.push(format!("{row}\n{faults}"));
            "unknown"
        } else if warnings.contains("is SRS's and changes nothing") {
            "accepted"
        } else if block != "-"
            && load(
                block.trim_end_matches(" tcp").trim_end_matches(" black_hole").trim_end_matches(" sip"),
                "",
                "enabled on;",
            )
            .0
            .contains("not supported")
        {
            "not built yet"
        } else {
            "acts"
        };
        *counts.entry(state).or_default() += 1;
    }
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
    println!("{counts:?}");
    assert!(counts.values().sum::<usize>() >= 340, "{counts:?}");
    assert!(counts["not built yet"] <= NOT_BUILT_MAX, "{counts:?}");
}
