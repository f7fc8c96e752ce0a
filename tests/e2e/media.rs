//! Files to publish, made once per build directory, and the programs that publish and play.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
};

/// Set to go without programs that are not installed; their tests pass then without a word proved.
const SKIP: &str = "CORECAST_SKIP_MISSING_TOOLS";

/// Seconds of every file.
pub(crate) const SECONDS: u32 = 4;

/// Whether `tool` is there. A missing one fails the test, unless the variable allows to skip.
pub(crate) fn have(tool: &str) -> bool {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(tool).exists()));
    assert!(found || std::env::var_os(SKIP).is_some(), "{tool} is missing: run scripts/check, or set {SKIP}=1");
    found
}

/// ffmpeg 9 with Enhanced RTMP, as scripts/check fetches it.
pub(crate) fn ffmpeg9() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/ffmpeg9");
    assert!(path.exists() || std::env::var_os(SKIP).is_some(), "{} is missing: run scripts/check", path.display());
    path.exists().then_some(path)
}

/// H.264 with B-frames and AAC.
pub(crate) fn avc_aac() -> PathBuf {
    let codec = "-c:v libx264 -preset veryfast -bf 2 -g 30 -b:v 600k -c:a aac -b:a 96k";
    made("avc_aac.flv", Path::new("ffmpeg"), codec, "")
}

/// The same without audio.
pub(crate) fn avc_only() -> PathBuf {
    made("avc.flv", Path::new("ffmpeg"), "-c:v libx264 -preset veryfast -bf 2 -g 30 -b:v 600k -an", "")
}

/// AAC alone.
pub(crate) fn aac_only() -> PathBuf {
    made("aac.flv", Path::new("ffmpeg"), "-vn -c:a aac -b:a 96k", "")
}

/// H.264 and MP3.
pub(crate) fn mp3() -> PathBuf {
    let codec = "-c:v libx264 -preset veryfast -bf 2 -g 30 -b:v 600k -c:a libmp3lame -b:a 96k";
    made("mp3.flv", Path::new("ffmpeg"), codec, "")
}

/// Bodies of about 400 kB a second, so that small chunks and several sends per GOP come up.
pub(crate) fn avc_large() -> PathBuf {
    let codec = "-c:v libx264 -preset ultrafast -bf 2 -g 60 -b:v 6000k -c:a aac -b:a 128k";
    made("avc_large.flv", Path::new("ffmpeg"), codec, "noise=alls=60:allf=t")
}

/// HEVC and AAC with E-RTMP's headers.
pub(crate) fn hevc(ffmpeg9: &Path) -> PathBuf {
    made("hevc.flv", ffmpeg9, "-c:v libx265 -preset ultrafast -x265-params log-level=error:keyint=30 -c:a aac", "")
}

/// AV1 and AAC with E-RTMP's headers.
pub(crate) fn av1(ffmpeg9: &Path) -> PathBuf {
    made("av1.flv", ffmpeg9, "-c:v libsvtav1 -preset 12 -g 30 -b:v 300k -c:a aac", "")
}

/// VP9 and FLAC with E-RTMP's headers.
pub(crate) fn vp9(ffmpeg9: &Path) -> PathBuf {
    let codec = "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 300k -g 30 -c:a flac";
    made("vp9.flv", ffmpeg9, codec, "")
}

fn made(name: &str, ffmpeg: &Path, codec: &str, filter: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one_at_a_time = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        return path;
    }
    assert!(ffmpeg.is_absolute() || have("ffmpeg"), "ffmpeg makes the files to publish");
    let unfinished = path.with_extension("part");
    let (video, audio) = ("testsrc2=size=640x360:rate=30", "sine=440:r=44100");
    let mut command = Command::new(ffmpeg);
    command.args(["-v", "error", "-y", "-f", "lavfi", "-i", video, "-f", "lavfi", "-i", audio]);
    if !filter.is_empty() {
        command.args(["-vf", filter]);
    }
    command.args(["-t", &SECONDS.to_string()]).args(codec.split(' ')).args(["-f", "flv"]).arg(&unfinished);
    let made = command.env("SVT_LOG", "1").output().expect("ffmpeg");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::rename(&unfinished, &path).expect("rename");
    path
}

/// A program that ends with the test at the latest.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(Some(child.unwrap_or_else(|error| panic!("{command:?}: {error}"))))
    }

    /// Waits for its end.
    pub(crate) fn output(mut self) -> Output {
        self.0.take().expect("running").wait_with_output().expect("its output")
    }

    /// Waits for its end, which must be a success; returns what it printed.
    pub(crate) fn success(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Ends it.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // SIGTERM, which timeout(1) passes on; SIGKILL would leave its program alone.
            drop(Command::new("kill").arg(child.id().to_string()).stderr(Stdio::null()).status());
            drop(child.wait());
        }
    }
}

/// A command that is ended after a minute, come what may.
pub(crate) fn bounded(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program);
    command
}

/// ffmpeg publishing `file` in real time.
pub(crate) fn publish(ffmpeg: &Path, file: &Path, url: &str) -> Running {
    let mut command = bounded(ffmpeg);
    Running::start(command.args(["-v", "error", "-re", "-i"]).arg(file).args(["-c", "copy", "-f", "flv", url]))
}

/// ffmpeg publishing `file` in real time over and over, for tests that end it themselves: a file may be over before
/// a slow machine has looked.
pub(crate) fn publish_on(file: &Path, url: &str) -> Running {
    let mut command = bounded("ffmpeg");
    command.args(["-v", "error", "-re", "-stream_loop", "-1", "-i"]).arg(file);
    Running::start(command.args(["-c", "copy", "-f", "flv", url]))
}

/// ffmpeg playing `url` to its end, every packet's hash to stdout.
pub(crate) fn play_hashes(ffmpeg: &Path, url: &str) -> Running {
    let mut command = bounded(ffmpeg);
    Running::start(command.args(["-v", "error", "-i", url, "-c", "copy", "-f", "framehash", "-hash", "md5", "-"]))
}

/// A packet: track, time since the first packet of the file, hash.
pub(crate) type Packet = (u32, i64, String);

/// Reads ffmpeg's framehash; times count from the earliest packet.
pub(crate) fn packets(framehash: &str) -> Vec<Packet> {
    let fields = |line: &str| line.split(',').map(|field| field.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = framehash.lines().filter(|line| !line.starts_with('#')).map(fields).collect();
    let ticks = tick_ms(framehash);
    let time = |row: &Vec<String>| {
        let track: usize = row[0].parse().expect("a track");
        let dts: f64 = row[1].parse().expect("a time");
        (dts * ticks[track]).round() as i64
    };
    let first = rows.iter().map(time).min().unwrap_or(0);
    rows.iter().map(|row| (row[0].parse().expect("a track"), time(row) - first, row[5].clone())).collect()
}

/// Milliseconds of each track's time base.
fn tick_ms(framehash: &str) -> Vec<f64> {
    let bases = framehash.lines().filter_map(|line| line.strip_prefix("#tb ")?.split_once(": "));
    bases
        .map(|(_, base)| {
            base.split_once('/').map_or(1.0, |(a, b)| {
                let number = |text: &str| text.trim().parse::<f64>().expect("a number");
                1000.0 * number(a) / number(b)
            })
        })
        .collect()
}

/// The packets of a file.
pub(crate) fn packets_of_file(ffmpeg: &Path, file: &Path) -> Vec<Packet> {
    packets(&play_hashes(ffmpeg, file.to_str().expect("a path")).success())
}

/// Packets of one track, in order.
pub(crate) fn track(packets: &[Packet], track: u32) -> Vec<Packet> {
    packets.iter().filter(|packet| packet.0 == track).cloned().collect()
}
