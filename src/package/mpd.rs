//! MPDs (ISO 23009-1): a list of what there is of a stream, by period and track.

use super::{
    MARK,
    kept::{Kept, Period, PeriodTrack, Piece},
    names::timestamp,
};
use crate::{config::Dash, proto::mp4::Coding};
use quick_xml::Writer;
use std::{io, sync::Arc};

/// Stands where the time is that a request comes at.
pub(super) const NOW: char = '\u{2}';
/// Players stay so many segments behind the end, or so many chunks where they get segments as they grow.
const DELAY_SEGMENTS: u64 = 2;
const DELAY_CHUNKS: u64 = 8;

/// A time, or how long something lasts (XML Schema's duration).
fn duration(ms: u64) -> String {
    format!("PT{}.{:03}S", ms / 1000, ms % 1000)
}

/// A period, and those of its segments that are listed.
type Listed<'a> = (&'a Arc<Period>, Vec<&'a Piece>);

/// The MPD; for low latency where there are parts of a length in ms, with the segments that are being made.
pub(super) fn text(
    kept: &Kept,
    dash: &Dash,
    part_ms: Option<u64>,
    open: Option<(&Arc<Period>, &[Piece])>,
    now_ms: u64,
) -> String {
    let mut periods: Vec<Listed<'_>> = Vec::new();
    let whole = kept.segments.iter().filter_map(|segment| Some((segment.period.as_ref()?, &segment.pieces[..])));
    for (period, pieces) in whole.chain(open) {
        match periods.last_mut().filter(|(last, _)| Arc::ptr_eq(last, period)) {
            Some((_, listed)) => listed.extend(pieces),
            None => periods.push((period, pieces.iter().collect())),
        }
    }
    let longest_ms = kept.segments.iter().map(|segment| segment.duration_ms).max().unwrap_or(0).max(dash.fragment_ms);
    let all_ms: u64 = kept.segments.iter().map(|segment| segment.duration_ms).sum();
    let delay_ms = part_ms.map_or(DELAY_SEGMENTS * longest_ms, |part_ms| DELAY_CHUNKS * part_ms);
    let mut out = Writer::new_with_indent(Vec::with_capacity(4096), b' ', 2);
    let profiles = "urn:mpeg:dash:profile:isoff-live:2011,http://dashif.org/guidelines/dash-if-simple";
    let update_ms = if part_ms.is_some() { dash.update_ms.min(longest_ms / 2) } else { dash.update_ms };
    let mpd = out
        .create_element("MPD")
        .with_attribute(("xmlns", "urn:mpeg:dash:schema:mpd:2011"))
        .with_attribute(("profiles", profiles))
        .with_attribute(("type", "dynamic"))
        .with_attribute(("availabilityStartTime", timestamp(kept.epoch_ms).as_str()))
        .with_attribute(("publishTime", timestamp(now_ms).as_str()))
        .with_attribute(("minimumUpdatePeriod", duration(update_ms).as_str()))
        .with_attribute(("minBufferTime", duration(part_ms.unwrap_or(longest_ms).max(500)).as_str()))
        .with_attribute(("timeShiftBufferDepth", duration(all_ms.max(longest_ms)).as_str()))
        .with_attribute(("suggestedPresentationDelay", duration(delay_ms).as_str()))
        .with_attribute(("maxSegmentDuration", duration(longest_ms + 500).as_str()));
    let early = part_ms.map(|part_ms| dash.fragment_ms.saturating_sub(part_ms));
    let written = mpd.write_inner_content(|out| {
        if part_ms.is_some() {
            out.create_element("ServiceDescription").with_attribute(("id", "0")).write_inner_content(|out| {
                let latency = out.create_element("Latency");
                let latency = latency.with_attribute(("target", delay_ms.to_string().as_str()));
                latency.with_attribute(("referenceId", "0")).write_empty()?;
                let rates = out.create_element("PlaybackRate").with_attribute(("min", "0.96"));
                rates.with_attribute(("max", "1.04")).write_empty()?;
                Ok(())
            })?;
        }
        for (period, pieces) in &periods {
            put_period(kept, early, period, pieces, out)?;
        }
        put_clock(out)
    });
    if written.is_err() {
        // Nothing is written but to memory.
        return String::new();
    }
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    text.push_str(&String::from_utf8_lossy(&out.into_inner()));
    text.push('\n');
    text
}

/// The server's clock, by which the times in it count.
fn put_clock(out: &mut Writer<Vec<u8>>) -> io::Result<()> {
    let clock = out.create_element("UTCTiming").with_attribute(("schemeIdUri", "urn:mpeg:dash:utc:direct:2014"));
    clock.with_attribute(("value", NOW.to_string().as_str())).write_empty()?;
    Ok(())
}

/// `early` is how much earlier than whole a segment can be had, in ms, for low latency.
fn put_period(
    kept: &Kept,
    early: Option<u64>,
    period: &Period,
    pieces: &[&Piece],
    out: &mut Writer<Vec<u8>>,
) -> io::Result<()> {
    let element = out.create_element("Period").with_attribute(("id", period.id.to_string().as_str()));
    let start = duration(period.at_ms.saturating_sub(kept.epoch_ms));
    element.with_attribute(("start", start.as_str())).write_inner_content(|out| {
        for track in &period.tracks {
            let of_track: Vec<&Piece> = pieces.iter().copied().filter(|piece| piece.track == track.track).collect();
            if let Some(first) = of_track.first() {
                put_track(early, period, track, first.number, &of_track, out)?;
            }
        }
        Ok(())
    })?;
    Ok(())
}

fn put_track(
    early: Option<u64>,
    period: &Period,
    track: &PeriodTrack,
    first: u64,
    pieces: &[&Piece],
    out: &mut Writer<Vec<u8>>,
) -> io::Result<()> {
    let kind = if matches!(track.coding, Coding::Video { .. }) { "video" } else { "audio" };
    let rate = |piece: &&Piece| 8 * piece.bytes * u64::from(track.timescale) / piece.duration.max(1);
    let bandwidth = pieces.iter().map(rate).max().unwrap_or(0).max(1);
    let set = out
        .create_element("AdaptationSet")
        .with_attribute(("id", track.track.to_string().as_str()))
        .with_attribute(("contentType", kind))
        .with_attribute(("mimeType", format!("{kind}/mp4").as_str()))
        .with_attribute(("segmentAlignment", "true"))
        .with_attribute(("startWithSAP", "1"));
    set.write_inner_content(|out| {
        if early.is_some() {
            // What stood on the wall when the period's first frame came.
            let element =
                out.create_element("ProducerReferenceTime").with_attribute(("id", track.track.to_string().as_str()));
            let element = element.with_attribute(("type", "captured")).with_attribute(("inband", "false"));
            let element = element.with_attribute(("wallClockTime", timestamp(period.at_ms).as_str()));
            element
                .with_attribute(("presentationTime", track.start.to_string().as_str()))
                .write_inner_content(put_clock)?;
        }
        let representation = out.create_element("Representation").with_attribute(("id", kind));
        let representation = representation.with_attribute(("codecs", track.codecs.as_str()));
        let representation = representation.with_attribute(("bandwidth", bandwidth.to_string().as_str()));
        let (width, height, sampling) = match &track.coding {
            Coding::Video { size, .. } => (size.0.to_string(), size.1.to_string(), String::new()),
            Coding::Audio { rate, .. } => (String::new(), String::new(), rate.to_string()),
        };
        let attributes = [("width", &width), ("height", &height), ("audioSamplingRate", &sampling)];
        let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty());
        let representation = representation.with_attributes(attributes.map(|(name, value)| (name, value.as_str())));
        representation.write_inner_content(|out| {
            if let Coding::Audio { channels, .. } = &track.coding {
                let scheme = ("schemeIdUri", "urn:mpeg:dash:23003:3:audio_channel_configuration:2011");
                let element = out.create_element("AudioChannelConfiguration").with_attribute(scheme);
                element.with_attribute(("value", channels.to_string().as_str())).write_empty()?;
            }
            put_template(early, track, first, pieces, out)
        })?;
        Ok(())
    })?;
    Ok(())
}

fn put_template(
    early: Option<u64>,
    track: &PeriodTrack,
    first: u64,
    pieces: &[&Piece],
    out: &mut Writer<Vec<u8>>,
) -> io::Result<()> {
    let template = out
        .create_element("SegmentTemplate")
        .with_attribute(("timescale", track.timescale.to_string().as_str()))
        .with_attribute(("presentationTimeOffset", track.start.to_string().as_str()))
        .with_attribute(("initialization", format!("{}{MARK}", track.map.uri).as_str()))
        .with_attribute(("media", format!("{}$Number$.m4s{MARK}", track.media).as_str()))
        .with_attribute(("startNumber", first.to_string().as_str()));
    let early = early.filter(|early_ms| *early_ms > 0);
    let early = early.map(|early_ms| format!("{}.{:03}", early_ms / 1000, early_ms % 1000));
    let early = early
        .iter()
        .flat_map(|early| [("availabilityTimeOffset", early.as_str()), ("availabilityTimeComplete", "false")]);
    template.with_attributes(early).write_inner_content(|out| {
        out.create_element("SegmentTimeline").write_inner_content(|out| {
            let mut expected = None;
            let mut at = 0;
            while let Some(piece) = pieces.get(at) {
                // Those of equal length that follow each other are one element.
                let same = |next: usize| {
                    let start = piece.start + (next - at) as u64 * piece.duration;
                    pieces.get(next).is_some_and(|other| other.start == start && other.duration == piece.duration)
                };
                let more = (at + 1..pieces.len()).take_while(|next| same(*next)).count();
                let mut element = out.create_element("S");
                if expected != Some(piece.start) {
                    element = element.with_attribute(("t", piece.start.to_string().as_str()));
                }
                element = element.with_attribute(("d", piece.duration.to_string().as_str()));
                if more > 0 {
                    element = element.with_attribute(("r", more.to_string().as_str()));
                }
                element.write_empty()?;
                expected = Some(piece.start + (more as u64 + 1) * piece.duration);
                at += more + 1;
            }
            Ok(())
        })?;
        Ok(())
    })?;
    Ok(())
}
