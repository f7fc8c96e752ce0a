//! Fetches mpegts.js, which plays FLV in browsers, with npm, at the version and hash that are pinned here.
//!
//! Without npm the server builds all the same: its page lists streams and says why it cannot play.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    let source = Path::new("src/control/page");
    for file in ["package.json", "package-lock.json", "build.rs"] {
        println!("cargo::rerun-if-changed={}", source.join(file).display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let script = match fetch(source, &out) {
        Ok(script) => script,
        Err(why) => {
            println!("cargo::warning=the page will not play streams: {why}; install npm (Node.js) and build again");
            format!("export default null; export const why = {why:?};\n")
        }
    };
    if let Err(error) = fs::write(out.join("mpegts.js"), script) {
        println!("cargo::error=mpegts.js: {error}");
    }
}

/// The library as a module.
fn fetch(source: &Path, out: &Path) -> Result<String, String> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), out.join(file)).map_err(|error| format!("{file}: {error}"))?;
    }
    // The lock file has the hash; nothing of the package is run.
    let npm = Command::new("npm")
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"])
        .current_dir(out)
        .output();
    let npm = npm.map_err(|error| format!("npm does not run ({error})"))?;
    if !npm.status.success() {
        return Err(format!("npm ci failed: {}", String::from_utf8_lossy(&npm.stderr).replace('\n', " ")));
    }
    let read = |file: &str| {
        let file = out.join("node_modules").join(file);
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))
    };
    let library = read("mpegts.js/dist/mpegts.js")?;
    // Whoever passes it on passes its licences on, and browsers get it from here.
    let licences = format!("{}\n{}", read("mpegts.js/LICENSE")?, read("es6-promise/LICENSE")?).replace("*/", "");
    // It hands itself over in CommonJS's way.
    Ok(format!(
        "/*\n{licences}\n*/\nconst module = {{ exports: {{}} }}; const exports = module.exports;\n{library}\nexport default module.exports;\n"
    ))
}
