//! The texts that a configuration comes from: files, what they include, and the environment.

use super::{
    faults::Fault,
    place::{Sources, Word},
    syntax::{self, Directive},
};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Deepest nesting of includes.
const INCLUDE_DEPTH_MAX: usize = 8;
/// Most files of one configuration.
const FILES_MAX: usize = 256;
/// Most bytes of one file.
const FILE_BYTES_MAX: u64 = 1 << 20;

impl Sources {
    /// Parses a text, and what it includes.
    pub(super) fn parse(&mut self, path: Option<&Path>, source: usize, faults: &mut Vec<Fault>) -> Vec<Directive> {
        let directory = path.and_then(Path::parent).map(Path::to_path_buf);
        let mut within: Vec<PathBuf> = path.and_then(|path| path.canonicalize().ok()).into_iter().collect();
        let directives = syntax::parse(source, &self.0[source].text, faults);
        self.expand(directives, directory.as_deref(), &mut within, faults)
    }

    /// Puts the directives of included files in their place.
    fn expand(
        &mut self,
        directives: Vec<Directive>,
        directory: Option<&Path>,
        within: &mut Vec<PathBuf>,
        faults: &mut Vec<Fault>,
    ) -> Vec<Directive> {
        let mut expanded = Vec::new();
        for mut directive in directives {
            if directive.name.text != "include" {
                directive.block = directive.block.map(|block| self.expand(block, directory, within, faults));
                expanded.push(directive);
                continue;
            }
            if directive.arguments.is_empty() || directive.block.is_some() {
                let fault =
                    Fault::new(&directive.name, "`include` needs files").help("for example `include vhosts/*.conf;`");
                faults.push(fault);
            }
            for argument in &directive.arguments {
                expanded.extend(self.include(argument, directory, within, faults));
            }
        }
        expanded
    }

    fn include(
        &mut self,
        pattern: &Word,
        directory: Option<&Path>,
        within: &mut Vec<PathBuf>,
        faults: &mut Vec<Fault>,
    ) -> Vec<Directive> {
        let mut directives = Vec::new();
        for path in matching(pattern, directory, faults) {
            let refusal = |message: String, help: &str| Fault::new(pattern, message).help(help);
            let shown = path.display().to_string();
            let canonical = path.canonicalize().unwrap_or_else(|_| path.clone());
            if within.contains(&canonical) {
                faults.push(refusal(format!("`{shown}` includes itself"), "remove one of the includes"));
            } else if within.len() > INCLUDE_DEPTH_MAX {
                let message = format!("files included deeper than {INCLUDE_DEPTH_MAX}");
                faults.push(refusal(message, "include the file from one further up"));
            } else if self.0.len() >= FILES_MAX {
                faults.push(refusal(format!("more than {FILES_MAX} files"), "merge some of them"));
                return directives;
            } else {
                match read(&path) {
                    Ok(text) => {
                        let source = self.add(shown, text);
                        let parsed = syntax::parse(source, &self.0[source].text, faults);
                        within.push(canonical);
                        directives.extend(self.expand(parsed, path.parent(), within, faults));
                        within.pop();
                    }
                    Err(error) => faults
                        .push(refusal(format!("`{shown}` cannot be read: {error}"), "check the path and its rights")),
                }
            }
        }
        directives
    }
}

/// The files that a pattern means, in order: beside the file that includes, or else, as SRS has it, from
/// the working directory. A pattern may match nothing, a plain path not.
fn matching(pattern: &Word, directory: Option<&Path>, faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    let beside = directory.map(|directory| directory.join(&pattern.text));
    for candidate in beside.iter().map(PathBuf::as_path).chain([Path::new(&pattern.text)]) {
        match glob::glob(&candidate.to_string_lossy()) {
            Ok(paths) => {
                let paths: Vec<PathBuf> = paths.filter_map(Result::ok).collect();
                if !paths.is_empty() {
                    return paths;
                }
            }
            Err(error) => {
                faults.push(Fault::new(pattern, format!("`{}` is no pattern: {}", pattern.text, error.msg)));
                return Vec::new();
            }
        }
    }
    if !pattern.text.contains(['*', '?', '[']) {
        let fault = Fault::new(pattern, format!("`{}` does not exist", pattern.text));
        faults.push(fault.help("paths count from the file that includes, or from the working directory"));
    }
    Vec::new()
}

/// Reads a configuration file, up to [`FILE_BYTES_MAX`].
pub(super) fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("larger than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}
