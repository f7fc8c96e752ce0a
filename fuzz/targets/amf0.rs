//! AMF0: values survive an encoding, what follows a value is left, memory is bounded.
#![no_main]

use corecast::proto::{
    amf::{VALUES_MAX, Value, amf0},
    rtmp::{
        command::Command,
        message::{Message, type_id},
    },
};
use corecast_fuzz::{assert_taken, bound, conversation, seeds, within};
use libfuzzer_sys::fuzz_target;

/// The most that a value takes beside its text: an object of one pair.
const VALUE_BYTES_MAX: usize = 256;

fuzz_target!(init: seeds(values), |data: &[u8]| {
    let decoded = within(bound(data.len()) + VALUES_MAX * VALUE_BYTES_MAX, || amf0::decode_all(data));
    if let Ok(values) = &decoded {
        // Bytes compare better than values: NaN is not equal to itself, and bytes of AMF3 become null.
        let encoded = amf0::encode_all(values);
        let again = amf0::decode_all(&encoded).expect("our own encoding");
        assert_eq!(amf0::encode_all(&again), encoded);
        assert_eq!(again.len(), values.len());
        check_command(values, &encoded);
    }
    let mut rest = data;
    let mut one_by_one = Vec::new();
    while let Ok((value, after)) = amf0::decode_one(rest) {
        assert_taken(rest, after);
        assert!(after.len() < rest.len(), "a value of no bytes");
        one_by_one.push(value);
        rest = after;
    }
    if let Ok(values) = decoded {
        assert!(rest.is_empty());
        assert_eq!(amf0::encode_all(&values), amf0::encode_all(&one_by_one));
    }
});

/// A command is its name, its number and the rest.
fn check_command(values: &[Value], encoded: &[u8]) {
    let payload = encoded.to_vec().into();
    let message = Message { csid: 3, timestamp: 0, type_id: type_id::COMMAND_AMF0, message_stream_id: 0, payload };
    let Ok(command) = Command::read(&message) else {
        assert!(values.first().is_none_or(|name| name.as_str().is_none()));
        return;
    };
    let again = Command::encode(&command.name, command.transaction_id, &command.arguments);
    let again = Command::read(&Message { payload: again.into(), ..message }).expect("our own command");
    assert_eq!((again.name, again.arguments.len()), (command.name, command.arguments.len()));
}

fn values() -> Vec<Vec<u8>> {
    let each = [
        Value::Number(-1.5),
        Value::Boolean(true),
        Value::string("text"),
        Value::string("x".repeat(70_000)),
        Value::object([("app", Value::string("live")), ("n", Value::Number(1.0)), ("o", Value::object([]))]),
        Value::EcmaArray(vec![("k".into(), Value::Date(7.0))]),
        Value::StrictArray(vec![Value::Null, Value::Undefined, Value::StrictArray(Vec::new())]),
    ];
    let mut seeds: Vec<Vec<u8>> = each.iter().map(|value| amf0::encode_all(std::slice::from_ref(value))).collect();
    seeds.push(amf0::encode_all(&each[..3]));
    seeds.push(Command::encode("connect", 1.0, &each[4..]));
    seeds.extend(conversation::tags().into_iter().take(1).map(|tag| tag.body.to_vec()));
    // What we decode and do not encode: references, XML, typed objects, AMF3.
    seeds.push(b"\x07\0\x01\x0D\x0F\0\0\0\x02<>\x10\0\x01C\0\x01k\x05\0\0\x09".to_vec());
    seeds.push(b"\x11\x0A\x0B\x01\x03a\x06\0\x01\x11\x09\x05\x01\x02\x03\x11\x0C\x05ab".to_vec());
    seeds
}
