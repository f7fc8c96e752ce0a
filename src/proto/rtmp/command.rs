//! NetConnection and NetStream commands (RTMP 1.0 §7.2), and their statuses.

use super::message::{Message, type_id};
use crate::proto::amf::{AmfError, Value, amf0};
use std::sync::Arc;

/// The chunk stream of NetConnection commands.
pub const COMMAND_CSID: u32 = 3;
/// The chunk stream of NetStream commands and their statuses.
pub const STREAM_COMMAND_CSID: u32 = 5;

/// Why a command message is none. Every variant closes the connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CommandError {
    /// The body is not AMF.
    #[error(transparent)]
    Amf(#[from] AmfError),
    /// The body does not begin with a name.
    #[error("a command without a name")]
    NoName,
    /// A command that needs a NetConnection came before `connect`.
    #[error("a command before connect")]
    NotConnected,
    /// `connect` twice.
    #[error("connect on a connected NetConnection")]
    ConnectedTwice,
    /// A URL or name that nobody needs: it is kept as long as the connection.
    #[error("{what} of {bytes} bytes, limit {bytes_max}")]
    TextTooLong {
        /// Which.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More NetStreams than one connection may have.
    #[error("more than {0} NetStreams")]
    TooManyNetStreams(usize),
}

/// A command: name, transaction id, and the rest, of which the first is the command object.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// `connect`, `play`, `_result` …
    pub name: Arc<str>,
    /// 0 asks for no answer.
    pub transaction_id: f64,
    /// Command object and arguments.
    pub arguments: Vec<Value>,
}

impl Command {
    /// Reads a message of type 20 or 17. The latter has a format byte before its AMF0 values, which
    /// may switch to AMF3 each (§7.1.1); some peers leave the byte out.
    ///
    /// # Errors
    /// [`CommandError::Amf`] or [`CommandError::NoName`].
    pub fn read(message: &Message) -> Result<Self, CommandError> {
        let mut values = amf0::decode_all(body(message))?.into_iter();
        let Some(Value::String(name)) = values.next() else { return Err(CommandError::NoName) };
        let transaction_id = values.next().and_then(|id| id.as_number()).unwrap_or(0.0);
        Ok(Self { name, transaction_id, arguments: values.collect() })
    }

    /// Argument `at`, 0 being the command object.
    pub fn argument(&self, at: usize) -> &Value {
        self.arguments.get(at).unwrap_or(&Value::Undefined)
    }

    /// The body of a type 20 message.
    pub fn encode(name: &str, transaction_id: f64, arguments: &[Value]) -> Vec<u8> {
        let mut out = amf0::encode_all(&[Value::string(name), Value::Number(transaction_id)]);
        arguments.iter().for_each(|argument| amf0::encode(argument, &mut out));
        out
    }
}

/// A message's AMF0 part: all of it, less the format byte of the AMF3 types.
pub fn body(message: &Message) -> &[u8] {
    let amf3 = matches!(message.type_id, type_id::COMMAND_AMF3 | type_id::DATA_AMF3);
    if amf3 && message.payload.first() == Some(&0) { &message.payload[1..] } else { &message.payload }
}

/// A status's level.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Level {
    /// "status".
    Status,
    /// "error".
    Error,
}

/// A status object: level, code, description.
pub fn status_object(level: Level, code: &str, description: &str) -> Vec<(Arc<str>, Value)> {
    let level = if level == Level::Status { "status" } else { "error" };
    [("level", level), ("code", code), ("description", description)]
        .into_iter()
        .map(|(key, text)| (Arc::from(key), Value::string(text)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(type_id: u8, payload: Vec<u8>) -> Message {
        Message { csid: 3, timestamp: 0, type_id, message_stream_id: 0, payload: payload.into() }
    }

    /// B8: type 20, and type 17 with its format byte and with AMF3 values inside.
    #[test]
    fn b8_commands_of_both_types() {
        let body = Command::encode("play", 4.0, &[Value::Null, Value::string("x")]);
        let command = Command::read(&message(20, body.clone())).unwrap();
        assert_eq!((&*command.name, command.transaction_id, command.argument(1).as_str()), ("play", 4.0, Some("x")));
        let with_format = [&[0][..], &body].concat();
        assert_eq!(Command::read(&message(17, with_format)).unwrap(), command);
        assert_eq!(Command::read(&message(17, body)).unwrap(), command);
        let mut amf3 =
            [&[0][..], &amf0::encode_all(&[Value::string("play"), Value::Number(4.0), Value::Null])].concat();
        amf3.extend_from_slice(&[0x11, 0x06, 0x03, b'x']);
        assert_eq!(Command::read(&message(17, amf3)).unwrap(), command);
        assert_eq!(Command::read(&message(20, vec![0x05])), Err(CommandError::NoName));
    }
}
