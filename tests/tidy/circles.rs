//! Which file imports which, by their `use` lines, and where that goes round.

use std::collections::{BTreeMap, BTreeSet};

/// What a text's `use` lines name, a path each.
pub(crate) fn uses(text: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for statement in text.split(';') {
        // Behind attributes, blocks and visibility.
        let Some(at) = statement.rfind("use ").filter(|at| !statement[*at..].contains(['(', ')', '=', '!'])) else {
            continue;
        };
        let begins = statement[..at].trim_end();
        if begins.is_empty() || begins.ends_with(['}', ']', ')', '{']) || begins.ends_with("pub") {
            let tree: String = statement[at + "use ".len()..].split_whitespace().collect::<Vec<_>>().join(" ");
            expand("", &tree, &mut paths);
        }
    }
    paths
}

/// Takes the braces of a `use` tree apart.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((head, rest)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        if !name.is_empty() {
            paths.push(format!("{prefix}{name}").trim_end_matches("::self").to_owned());
        }
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let inner = &rest[..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut begin) = (0_usize, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&prefix, &inner[begin..at], paths);
                begin = at + 1;
            }
            _ => {}
        }
    }
}

/// A crate's files by their module paths.
struct Crate<'a> {
    files: BTreeMap<Vec<String>, &'a str>,
    uses: BTreeMap<&'a str, Vec<String>>,
}

fn module_of(root: &str, path: &str) -> Vec<String> {
    let inner = path.strip_prefix(&format!("{root}/")).and_then(|path| path.strip_suffix(".rs")).unwrap_or(path);
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    module.pop_if(|last| matches!(last.as_str(), "mod" | "lib" | "main"));
    module
}

impl Crate<'_> {
    /// A path as a module sees it, from the crate's root; `None` for what is not of the crate.
    fn absolute(&self, module: &[String], path: &str) -> Option<Vec<String>> {
        let mut names: Vec<&str> = path.split("::").collect();
        let mut base = module.to_vec();
        match names.first().copied()? {
            "crate" | "corecast" => {
                base.clear();
                names.remove(0);
            }
            "self" => {
                names.remove(0);
            }
            "super" => {
                while names.first() == Some(&"super") {
                    base.pop();
                    names.remove(0);
                }
            }
            first => {
                base.push(first.to_owned());
                names.remove(0);
                self.files.get(&base)?;
            }
        }
        base.extend(names.into_iter().map(str::to_owned));
        Some(base)
    }

    /// The file that defines what a path names, through re-exports.
    fn file_of(&self, path: &[String], depth: usize) -> Option<&str> {
        let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
        let file = self.files[&path[..length]];
        let Some(name) = path.get(length).filter(|_| depth < 8) else { return Some(file) };
        let handed_on = self.uses[file].iter().filter_map(|used| self.absolute(&path[..length], used));
        let found = handed_on
            .filter(|used| used.last() == Some(name) && used.len() > length + 1)
            .find(|used| used.starts_with(&path[..length]));
        found.and_then(|used| self.file_of(&used, depth + 1)).or(Some(file))
    }
}

/// The files that import each other in circles, each circle a list. What a module takes from those that it stands in
/// is not counted: it is a part of them.
pub(crate) fn circles(root: &str, files: &[(String, String)]) -> Vec<Vec<String>> {
    let of = Crate {
        files: files.iter().map(|(path, _)| (module_of(root, path), path.as_str())).collect(),
        uses: files.iter().map(|(path, text)| (path.as_str(), uses(text))).collect(),
    };
    let mut arrows: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (module, path) in &of.files {
        for used in &of.uses[path] {
            let Some(absolute) = of.absolute(module, used) else { continue };
            let Some(file) = of.file_of(&absolute, 0) else { continue };
            if file != *path && !module.starts_with(&module_of(root, file)) {
                arrows.entry(path).or_default().insert(file);
            }
        }
    }
    // Whoever reaches itself is in a circle; those that reach each other are in one.
    let reach = |from: &str| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(next) = todo.pop() {
            for to in arrows.get(next.as_str()).into_iter().flatten() {
                if seen.insert((*to).to_owned()) {
                    todo.push((*to).to_owned());
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&str, BTreeSet<String>> = of.files.values().map(|path| (*path, reach(path))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for (path, seen) in reached.iter().filter(|(path, seen)| seen.contains(**path)) {
        let circle: Vec<String> =
            seen.iter().filter(|other| reached[other.as_str()].contains(*path)).cloned().collect();
        if !found.contains(&circle) {
            found.push(circle);
        }
    }
    assert!(arrows.len() > 5, "{} files of {root} import others", arrows.len());
    found
}
