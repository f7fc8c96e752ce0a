//! What hooks are told and asked, and what they say.

use crate::{config::HookUrl, control::access::ClientId, tls};
use bytes::Bytes;
use serde_json::Value;
use std::{fmt::Write, time::Duration};

/// Something that happens, and whom it concerns.
#[derive(Clone, Debug)]
pub struct Event {
    /// As SRS calls it, `on_publish` for example.
    pub action: &'static str,
    /// All of them must allow.
    pub urls: Vec<HookUrl>,
    /// For all URLs together, where an answer is waited for.
    pub timeout: Duration,
    /// Whether no answer allows.
    pub fail_open: bool,
    /// Whom https servers must be trusted by; `None` is whom the system trusts.
    pub trust: Option<tls::Connector>,
    /// Whose events arrive in order.
    pub client: ClientId,
    /// The stream, of publishes: that one has ended arrives before the next one is asked for.
    pub publishes: Option<String>,
    /// SRS's JSON.
    pub body: Body,
}

/// A JSON object that grows.
#[derive(Clone, Debug, Default)]
pub struct Body(String);

impl Body {
    /// Adds a member whose name is not there yet.
    pub fn add(&mut self, name: &str, value: impl Into<Value>) {
        let before = if self.0.is_empty() { '{' } else { ',' };
        // A string takes whatever is written.
        _ = write!(self.0, "{before}{}:{}", Value::from(name), value.into());
    }

    /// The object's text.
    pub(super) fn finish(mut self) -> Bytes {
        self.0.push_str(if self.0.is_empty() { "{}" } else { "}" });
        Bytes::from(self.0)
    }
}

/// What comes of a question.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It may be; what the answer says besides (`data`), of one URL alone.
    Allowed(Value),
    /// It may not, and why.
    Refused(String),
}

impl Verdict {
    /// What a status with a text says: 200 or 201 with `0` or `{"code":0}` allows, 401, 403 or another number refuses.
    ///
    /// # Errors
    /// In words: it is no answer.
    pub(super) fn read(status: u16, text: &[u8]) -> Result<Self, String> {
        match status {
            200 | 201 => {}
            401 | 403 => return Ok(Self::Refused(format!("the hook answers {status}"))),
            _ => return Err(format!("status {status}")),
        }
        let none = || "no JSON with a code".to_owned();
        let mut value: Value = serde_json::from_slice(text.trim_ascii()).map_err(|_| none())?;
        match value.as_i64().or_else(|| value.get("code")?.as_i64()) {
            Some(0) => Ok(Self::Allowed(value.get_mut("data").map_or(Value::Null, Value::take))),
            Some(code) => Ok(Self::Refused(format!("the hook answers {code}"))),
            None => Err(none()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_srs_s() {
        let read = |status, text: &str| Verdict::read(status, text.as_bytes());
        assert_eq!(read(200, "0"), Ok(Verdict::Allowed(Value::Null)));
        assert_eq!(read(201, " {\"code\": 0, \"data\": 1}\n"), Ok(Verdict::Allowed(Value::from(1))));
        assert_eq!(read(200, "{\"code\": 1}"), Ok(Verdict::Refused("the hook answers 1".to_owned())));
        assert_eq!(read(200, "-1"), Ok(Verdict::Refused("the hook answers -1".to_owned())));
        assert_eq!(read(403, ""), Ok(Verdict::Refused("the hook answers 403".to_owned())));
        for (status, text) in [(500, "0"), (302, "0"), (204, ""), (200, ""), (200, "fine"), (200, "{}"), (200, "[0]")] {
            assert!(read(status, text).is_err(), "{status} {text}");
        }
    }

    #[test]
    fn bodies_are_json() {
        let mut body = Body::default();
        assert_eq!(body.clone().finish(), "{}");
        body.add("a\"", "b\n");
        body.add("n", 1_u64);
        assert_eq!(body.finish(), "{\"a\\\"\":\"b\\n\",\"n\":1}");
    }
}
