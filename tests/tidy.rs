//! What the eye should not have to check: who uses whom, where `unsafe` stands, file sizes, and that
//! nothing of a machine is in the tree.

#![expect(clippy::expect_used, reason = "a test fails by a panic")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

#[path = "tidy/circles.rs"]
mod circles;

/// Each module, and which of ours it may use. `src/ARCHITECTURE.md` shows the same table.
const MAY_USE: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("stats", &[]),
    ("tls", &[]),
    ("sys", &["proto"]),
    ("config", &["proto", "tls"]),
    ("media", &["proto"]),
    ("mesh", &["media", "proto", "stats"]),
    ("cluster", &["media", "proto", "sys", "config"]),
    ("package", &["media", "proto", "config"]),
    ("programs", &["config", "sys"]),
    ("control", &["cluster", "package", "programs", "proto", "sys", "config", "tls", "stats"]),
    ("core", &["cluster", "package", "programs", "control", "mesh", "media", "proto", "sys", "config", "tls", "stats"]),
    ("endpoint", &["core", "package", "media", "proto", "config"]),
    ("glue", &["endpoint", "core", "cluster", "control", "package", "programs", "mesh", "sys", "config", "stats"]),
];
/// Of the shard, endpoints know its words alone.
const PORT: &str = "core::port::";
/// The load generator must not know the server's inside.
const BENCH_MAY_USE: &[&str] = &["proto", "sys", "stats"];
/// Where glommio's name may appear; in `control` for an executor of its own.
const GLOMMIO: &[&str] =
    &["src/sys/", "src/glue/", "src/control/plane.rs", "src/control/shards.rs", "src/control/hooks/", "bench/"];
/// Protocols, which the shard and its streams do not know. FLV's tags are the media itself.
const PROTOCOLS: &[&str] = &["rtmp", "http", "websocket", "ts"];
const LINES_MAX: usize = 500;
const TOP_LEVEL: &[&str] = &[
    ".ci",
    ".clippy.toml",
    ".dockerignore",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "README.md",
    "bench",
    "conf",
    "deny.toml",
    "fuzz",
    "scripts",
    "src",
    "tests",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files that git tracks, by their path from the root.
fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output().expect("git");
    let list = String::from_utf8(output.stdout).expect("UTF-8");
    list.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
}

fn rust_files() -> Vec<(String, String)> {
    let rust = tracked().into_iter().filter(|path| path.ends_with(".rs") && root().join(path).exists());
    rust.map(|path| (fs::read_to_string(root().join(&path)).expect("a file"), path))
        .map(|(text, path)| (path, text))
        .collect()
}

/// The text without its tests, comments and strings' worth of doubt: what counts as code here.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Our modules that `text` names: `crate::x`, and inside `crate::{…}`.
fn uses(text: &str, prefix: &str) -> Vec<String> {
    let modules = MAY_USE.iter().map(|(module, _)| *module);
    let mut used = Vec::new();
    for module in modules {
        let direct = text.contains(&format!("{prefix}::{module}::")) || text.contains(&format!("{prefix}::{module};"));
        let grouped = text.split(&format!("use {prefix}::{{")).skip(1).any(|group| {
            let group = group.split("\n};").next().unwrap_or_default();
            group.split(['\n', ',', '{']).any(|item| {
                let item = item.trim();
                item == module || item.starts_with(&format!("{module}::"))
            })
        });
        if direct || grouped {
            used.push(module.to_owned());
        }
    }
    used
}

#[test]
fn modules_use_only_what_they_may() {
    let tests = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for (path, text) in rust_files().into_iter().filter(|(path, _)| !tests(path)) {
        let Some(module) = path.strip_prefix("src/").and_then(|rest| rest.split(['/', '.']).next()) else { continue };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else { continue };
        for used in uses(&code(&text), "crate") {
            assert!(used == module || allowed.contains(&used.as_str()), "{path} uses {used}");
        }
    }
}

/// Endpoints speak to the shard in its port's words, and not to each other; only the registry knows them all.
#[test]
fn endpoints_know_the_port_and_not_each_other() {
    let is_endpoint = |path: &str| path.starts_with("src/endpoint/") && path.matches('/').count() > 2;
    let files: Vec<_> = rust_files().into_iter().filter(|(path, _)| is_endpoint(path)).collect();
    let folder = |path: &str| path.split('/').nth(2).unwrap_or_default().to_owned();
    for (path, text) in &files {
        for line in circles::uses(&code(text)) {
            assert!(!line.starts_with("crate::core::") || line.contains(PORT), "{path}: {line}");
            for other in files.iter().map(|(other, _)| folder(other)).filter(|other| *other != folder(path)) {
                let names = [
                    format!("crate::endpoint::{other}"),
                    format!("super::{other}::"),
                    format!("super::super::{other}"),
                ];
                assert!(!names.iter().any(|name| line.starts_with(name)), "{path} names {other}: {line}");
            }
        }
    }
    assert!(files.len() > 5, "{} files of endpoints", files.len());
}

/// The shard and its streams name no protocol.
#[test]
fn the_core_names_no_protocol() {
    let inner = |path: &str| ["src/core/", "src/media/", "src/mesh/"].iter().any(|folder| path.starts_with(folder));
    for (path, text) in rust_files().into_iter().filter(|(path, _)| inner(path)) {
        for line in circles::uses(&code(&text)) {
            let named = PROTOCOLS.iter().find(|name| line.contains(&format!("proto::{name}")));
            assert!(named.is_none(), "{path}: {line}");
        }
    }
}

/// No file comes back to itself by way of what it imports.
#[test]
fn files_do_not_import_each_other_in_circles() {
    for root in ["src", "bench"] {
        let files: Vec<_> = rust_files()
            .into_iter()
            .filter(|(path, _)| path.starts_with(&format!("{root}/")))
            .map(|(path, text)| (path, code(&text)))
            .collect();
        let found = circles::circles(root, &files);
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn the_load_generator_knows_no_server() {
    for (path, text) in rust_files().into_iter().filter(|(path, _)| path.starts_with("bench/")) {
        for used in uses(&code(&text), "corecast") {
            assert!(BENCH_MAY_USE.contains(&used.as_str()), "{path} uses {used}");
        }
    }
}

#[test]
fn unsafe_stands_in_sys_and_glommio_where_it_may() {
    for (path, text) in rust_files().into_iter().filter(|(path, _)| !path.starts_with("tests/")) {
        let code = code(&text);
        let unsafe_code = code.contains("unsafe {") || code.contains("unsafe fn") || code.contains("unsafe impl");
        assert!(!unsafe_code || path.starts_with("src/sys/"), "unsafe in {path}");
        let glommio = code.contains("glommio::");
        assert!(!glommio || GLOMMIO.iter().any(|place| path.starts_with(place)), "glommio in {path}");
    }
}

#[test]
fn files_are_small_and_bare_allows_absent() {
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{path} has {lines} lines, limit {LINES_MAX}");
        for (number, line) in text.lines().enumerate() {
            let allow = line.trim_start().starts_with("#[allow(") || line.trim_start().starts_with("#![allow(");
            assert!(!allow, "{path}:{}: write #[expect(…, reason = …)]", number + 1);
        }
    }
}

#[test]
fn the_top_level_is_as_it_should_be() {
    let mut top: Vec<String> = tracked().iter().filter_map(|path| path.split('/').next().map(str::to_owned)).collect();
    top.sort();
    top.dedup();
    assert_eq!(top, TOP_LEVEL);
    // What tools leave behind they hide, and mostly at the top.
    let hidden: Vec<String> = tracked().into_iter().filter(|path| path.contains("/.")).collect();
    assert_eq!(hidden, Vec::<String>::new());
}

/// A machine's mirror of the registry is nobody else's.
#[test]
fn crates_come_from_the_registry_that_everybody_has() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    for source in lock.lines().filter_map(|line| line.strip_prefix("source = ")) {
        assert_eq!(source, "\"registry+https://github.com/rust-lang/crates.io-index\"");
    }
    for page in ["src/control/page", "tests/page"] {
        let lock = fs::read_to_string(root().join(page).join("package-lock.json")).expect("package-lock.json");
        assert!(!lock.contains("\"resolved\""), "{page}: npm's default registry, and the hash, say what it is");
    }
}

#[test]
fn every_row_of_the_table_of_tests_exists() {
    let table = fs::read_to_string(root().join("tests/README.md")).expect("the table");
    let all: String = rust_files().into_iter().map(|(_, text)| text).collect();
    let mut rows = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        for name in line.split('`').skip(1).step_by(2) {
            assert!(all.contains(&format!("fn {name}(")), "{name} is in tests/README.md and nowhere else");
            rows += 1;
        }
    }
    assert!(rows > 40, "{rows} tests named");
}

/// The module table here and the one that people read are the same.
#[test]
fn architecture_shows_the_module_table() {
    let text = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for (module, allowed) in MAY_USE {
        let list = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
        assert!(text.contains(&format!("| `{module}` | {list} |")), "{module}");
    }
}

/// Every path that ARCHITECTURE.md names exists.
#[test]
fn architecture_names_real_files() {
    let text = fs::read_to_string(root().join("src/ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let named = text.split('`').skip(1).step_by(2).filter(|word| word.ends_with(".rs") || word.ends_with('/'));
    for path in named {
        let places: [PathBuf; 2] = [root().join("src").join(path), root().join(path)];
        assert!(places.iter().any(|place| place.exists()), "{path}");
    }
}

/// The scripts are well-formed, and say how they are used.
#[test]
fn scripts_parse_and_help() {
    for script in tracked().into_iter().filter(|path| path.starts_with("scripts/")) {
        let parsed = Command::new("bash").arg("-n").arg(root().join(&script)).output().expect("bash");
        assert!(parsed.status.success(), "{script}: {}", String::from_utf8_lossy(&parsed.stderr));
    }
    for script in ["scripts/bench", "scripts/fuzz", "scripts/notices", "scripts/tune"] {
        let help = Command::new(root().join(script)).arg("--help").output().expect("the script");
        assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("usage:"), "{script}");
    }
}
