//! Fetches what plays in browsers with npm, at the versions and hashes that are pinned here: mpegts.js for FLV, hls.js, dash.js.
//!
//! Without npm the server builds all the same: its page lists streams and says why it cannot play.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What is embedded, and where it is in its package.
const LIBRARIES: [(&str, &str); 3] = [
    ("mpegts.js", "mpegts.js/dist/mpegts.js"),
    ("hls.js", "hls.js/dist/hls.light.min.mjs"),
    ("dash.js", "dashjs/dist/modern/esm/dash.mediaplayer.min.js"),
];
/// Whoever passes them on passes their licences on.
const LICENCES: &str = "licences.txt";

fn main() {
    let source = Path::new("src/control/page");
    for file in ["package.json", "package-lock.json", "build.rs"] {
        println!("cargo::rerun-if-changed={}", source.join(file).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let files = fetch(source, &out).unwrap_or_else(|why| {
        println!("cargo::warning=the page will not play streams: {why}; install npm (Node.js) and build again");
        let nothing = format!("export default null; export const why = {why:?};\n");
        let mut files: Vec<_> = LIBRARIES.iter().map(|(name, _)| (*name, nothing.clone())).collect();
        files.push((LICENCES, String::new()));
        files
    });
    for (name, text) in files {
        if let Err(error) = fs::write(out.join(name), text) {
            println!("cargo::error={name}: {error}");
        }
    }
}

/// The libraries as modules.
fn fetch(source: &Path, out: &Path) -> Result<Vec<(&'static str, String)>, String> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), out.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    // The lock file has the hash; nothing of the packages is run.
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(out)
        .output();
    let npm = npm.map_err(|error| format!("npm does not run ({error})"))?;
    if !npm.status.success() {
        return Err(format!("npm ci failed: {}", String::from_utf8_lossy(&npm.stderr).replace('\n', " ")));
    }
    let packages = out.join("node_modules");
    let mut files = Vec::new();
    for (name, file) in LIBRARIES {
        let file = packages.join(file);
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        files.push((name, as_module(&text)));
    }
    let mut licences = Vec::new();
    collect(&packages, &mut licences).map_err(|error| format!("{}: {error}", packages.display()))?;
    files.push((LICENCES, licences.join("\n")));
    Ok(files)
}

/// A library that hands itself over in CommonJS's way, as a module; others as they are.
fn as_module(text: &str) -> String {
    // Its map is not there.
    let text = text.lines().filter(|line| !line.starts_with("//# sourceMappingURL")).collect::<Vec<_>>().join("\n");
    let head = "/* Licences: /page/licences.txt */\n";
    if text.contains("export{") || text.contains("export {") {
        return format!("{head}{text}\n");
    }
    format!(
        "{head}const module = {{ exports: {{}} }}; const exports = module.exports;\n{text}\nexport default module.exports;\n"
    )
}

/// The texts of licences in a directory of packages.
fn collect(directory: &Path, licences: &mut Vec<String>) -> std::io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let depth = path.components().rev().take_while(|part| part.as_os_str() != "node_modules").count();
        if path.is_dir() && depth <= 2 && !name.starts_with('.') {
            collect(&path, licences)?;
        } else if path.is_file() && (name.starts_with("licen") || name.starts_with("notice")) {
            let package = directory.strip_prefix(directory.ancestors().nth(depth - 1).unwrap_or(directory));
            let package = package.unwrap_or(directory).display().to_string();
            licences.push(format!("== {package}\n\n{}", fs::read_to_string(&path)?));
        }
    }
    Ok(())
}
