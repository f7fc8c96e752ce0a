//! The texts that a configuration comes from: files, what they include, and the environment.

use super::{
    faults::Fault,
    place::Word,
    section::Loader,
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

impl Loader {
    /// Parses a text, and what it includes.
    pub(super) fn read(&mut self, path: Option<&Path>, source: usize) -> Vec<Directive> {
        let directory = path.and_then(Path::parent).map(Path::to_path_buf);
        let mut within: Vec<PathBuf> = path.and_then(|path| path.canonicalize().ok()).into_iter().collect();
        let directives = syntax::parse(source, &self.sources.0[source].text, &mut self.faults);
        self.expand(directives, directory.as_deref(), &mut within)
    }

    /// Puts the directives of included files in their place.
    fn expand(
        &mut self,
        directives: Vec<Directive>,
        directory: Option<&Path>,
        within: &mut Vec<PathBuf>,
    ) -> Vec<Directive> {
        let mut expanded = Vec::new();
        for mut directive in directives {
            if directive.name.text != "include" {
                directive.block = directive.block.map(|block| self.expand(block, directory, within));
                expanded.push(directive);
                continue;
            }
            if directive.arguments.is_empty() || directive.block.is_some() {
                let fault =
                    Fault::new(&directive.name, "`include` needs files").help("for example `include vhosts/*.conf;`");
                self.faults.push(fault);
            }
            for argument in &directive.arguments {
                expanded.extend(self.include(argument, directory, within));
            }
        }
        expanded
    }

    fn include(&mut self, pattern: &Word, directory: Option<&Path>, within: &mut Vec<PathBuf>) -> Vec<Directive> {
        let mut directives = Vec::new();
        for path in matching(pattern, [Some(self.directory.as_path()), directory], &mut self.faults) {
            let refusal = |message: String, help: &str| Fault::new(pattern, message).help(help);
            let shown = path.display().to_string();
            let canonical = path.canonicalize().unwrap_or_else(|_| path.clone());
            if within.contains(&canonical) {
                self.faults.push(refusal(format!("`{shown}` includes itself"), "remove one of the includes"));
            } else if within.len() > INCLUDE_DEPTH_MAX {
                let message = format!("files included deeper than {INCLUDE_DEPTH_MAX}");
                self.faults.push(refusal(message, "include the file from one further up"));
            } else if self.sources.0.len() >= FILES_MAX {
                self.faults.push(refusal(format!("more than {FILES_MAX} files"), "merge some of them"));
                return directives;
            } else {
                match read(&path) {
                    Ok(text) => {
                        let source = self.sources.add(shown, text);
                        self.files.push(path.clone());
                        let parsed = syntax::parse(source, &self.sources.0[source].text, &mut self.faults);
                        within.push(canonical);
                        directives.extend(self.expand(parsed, path.parent(), within));
                        within.pop();
                    }
                    Err(error) => self
                        .faults
                        .push(refusal(format!("`{shown}` cannot be read: {error}"), "check the path and its rights")),
                }
            }
        }
        directives
    }
}

/// The files that a pattern means, in order: as SRS has it from the directory that the process was started in, or else
/// beside the file that includes. A pattern may match nothing, a plain path not.
fn matching(pattern: &Word, directories: [Option<&Path>; 2], faults: &mut Vec<Fault>) -> Vec<PathBuf> {
    for candidate in directories.into_iter().flatten().map(|directory| directory.join(&pattern.text)) {
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
        faults.push(fault.help("paths count from the working directory, or else from the file that includes"));
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
