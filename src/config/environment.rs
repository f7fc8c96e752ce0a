//! SRS's variables of the environment: each overrides a directive, or is accepted or refused as its directive is.

use super::{
    directives::Known,
    faults::{Fault, nearest},
    place::{Place, Word},
    section::Loader,
    srs::{ACCEPTED, MISSING},
    syntax::Directive,
    table::KNOWN,
};

/// Spellings of SRS's that do not follow from a directive's name. They matter only to what is not built yet, or are
/// obeyed elsewhere.
const OTHERS: &[&str] = &["SRS_VHOST_SRT_TO_RTMP", "SRS_CONFIG_FILE", "SRS_DEVICE_IP", "SRS_HOME", "SRS_PLATFORM"];

/// Turns variables into directives of a text that looks like the environment.
pub(super) fn take(loader: &mut Loader, variables: &[(String, String)]) {
    let known: Vec<String> = KNOWN.iter().flat_map(Known::variables).collect();
    let ours: Vec<&(String, String)> =
        variables.iter().filter(|(name, value)| name.starts_with("SRS_") && !value.trim().is_empty()).collect();
    let text: String = ours.iter().map(|(name, value)| format!("{name}={}\n", value.replace('\n', " "))).collect();
    let source = loader.sources.add("environment", text.clone());
    let mut at = 0;
    for line in text.lines() {
        let word = |start: usize, text: &str| {
            let span = at + start..at + start + text.len();
            Word { text: text.to_owned(), place: Place { source, span } }
        };
        let (name, value) = line.split_once('=').unwrap_or((line, ""));
        let first = word(0, name);
        if known.iter().any(|known| known == name) {
            let arguments = value.split_whitespace().map(|text| {
                let start = text.as_ptr() as usize - line.as_ptr() as usize;
                word(start, text)
            });
            loader.variables.push(Directive { name: first, arguments: arguments.collect(), block: None });
        } else {
            judge(loader, &first, value.trim(), &known);
        }
        at += line.len() + 1;
    }
}

/// Says what is to be said of a variable that overrides nothing.
fn judge(loader: &mut Loader, variable: &Word, value: &str, known: &[String]) {
    let name = variable.text.as_str();
    if OTHERS.contains(&name) {
        return;
    }
    if let Some(instead) = accepted(name) {
        loader.warnings.push(Fault::new(variable, format!("`{name}` is SRS's and changes nothing")).help(instead));
        return;
    }
    if let Some(missing) = MISSING.iter().find(|missing| name.starts_with(&missing.variables())) {
        let inside = name.trim_start_matches(&missing.variables()).to_lowercase();
        if inside == "enabled" {
            if value == "on" {
                let message = format!("`{name}` is SRS's and not supported: {}", missing.capability);
                loader.unsupported(variable, message, "unset it");
            }
            return;
        }
        // Where the block is off, which it is, it does not matter.
        if is_inside(missing.names, &inside) {
            return;
        }
    }
    let missing = MISSING
        .iter()
        .flat_map(|missing| missing.names.iter().map(|name| format!("{}{}", missing.variables(), name.to_uppercase())));
    let all: Vec<String> = known.iter().cloned().chain(missing).collect();
    // Container platforms set names of their own that begin so, such as SRS_PORT and SRS_SERVICE_HOST.
    let near = nearest(name, all.iter().map(String::as_str)).filter(|near| is_close(name, near));
    if let Some(near) = near {
        let fault = Fault::new(variable, format!("{name} is not known"));
        loader.warnings.push(fault.help(format!("ignored; did you mean {near}?")));
    }
}

fn accepted(name: &str) -> Option<&'static str> {
    let found = ACCEPTED.iter().find(|(block, directive, _)| {
        let variable = format!("{}{}", block.variable_prefix(), directive.to_uppercase());
        name.strip_prefix(variable.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    });
    found.map(|(.., instead)| *instead)
}

/// Whether `inside` is a directive of a block, or of one of its blocks.
fn is_inside(names: &[&str], inside: &str) -> bool {
    names.iter().any(|name| inside.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// Whether a name is likely to be meant for another: of one block, or all but the same.
fn is_close(name: &str, near: &str) -> bool {
    name.starts_with("SRS_VHOST_") || name.len() > 10 && strsim::osa_distance(name, near) <= 2
}
