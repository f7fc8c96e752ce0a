//! The `heartbeat` section.

use super::{
    directives::Block,
    explain::Line,
    section::{Section, url},
};
use std::time::Duration;

/// Whom the server tells that it is there, and what of itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Heartbeat {
    /// From one to the next. SRS: `interval`.
    pub interval: Duration,
    /// Where it is posted to. SRS: `url`.
    pub url: String,
    /// SRS: `device_id`.
    pub device_id: String,
    /// Whether it has the API's summary. SRS: `summaries`.
    pub summaries: bool,
    /// Whether it has where the server listens. SRS: `ports`.
    pub ports: bool,
    /// Sent as `Authorization: Bearer TOKEN`. SRS: `auth`.
    pub token: Option<String>,
}

impl Heartbeat {
    /// `None` unless enabled.
    pub(super) fn load(mut section: Section<'_>) -> Option<Self> {
        section.loader.explained.push(Line::Open("heartbeat".to_owned()));
        let enabled = section.flag("enabled");
        let interval = Duration::from_millis(section.milliseconds("interval").into());
        let (address, word) = section.text("url");
        if let Some(word) = word.filter(|_| url(&address).is_none()) {
            let message = format!("`{address}` is no value for `url`");
            section.loader.fault(&word, message, "an http:// or https:// URL");
        }
        let (device_id, _) = section.text("device_id");
        let (summaries, ports) = (section.flag("summaries"), section.flag("ports"));
        let auth = section.block("auth").unwrap_or_default();
        let token = load_token(Section::new(Block::HeartbeatAuth, auth, section.loader));
        section.loader.explained.push(Line::Close);
        section.finish();
        enabled.then_some(Self { interval, url: address, device_id, summaries, ports, token })
    }
}

fn load_token(mut section: Section<'_>) -> Option<String> {
    section.loader.explained.push(Line::Open("auth".to_owned()));
    let (enabled, enabled_word) = section.flag_at("enabled");
    section.choice("type");
    let token = Some(section.text("token").0).filter(|token| !token.is_empty());
    section.loader.explained.push(Line::Close);
    if let Some(word) = enabled_word.filter(|_| enabled && token.is_none()) {
        section.loader.fault(&word, "`auth` of `heartbeat` has no `token`", "add `type bearer; token TOKEN;`");
    }
    section.finish();
    token.filter(|_| enabled)
}
