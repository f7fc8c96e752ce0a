// Players on the page: mpegts.js over HTTP-FLV or WebSocket-FLV, hls.js, dash.js; each is loaded when it is first used.

/** How far behind the newest picture a player of FLV may fall, in seconds, before it jumps ahead. */
const LAG_MAX = 3;

/** What each way is called, and the ends of its paths. */
export const WAYS = {
  flv: { label: "HTTP-FLV", end: ".flv", start: startFlv },
  ws: { label: "WebSocket", end: ".flv", start: startFlv },
  hls: { label: "HLS", end: ".m3u8", start: startHls },
  dash: { label: "DASH", end: ".mpd", start: startDash },
};

/** Why nothing can be played here; empty if something can. */
export function obstacle() {
  return window.MediaSource || window.ManagedMediaSource ? "" : "This browser has no Media Source Extensions.";
}

/** The library behind a way; it may be missing in this build. */
async function library(name) {
  const found = await import(`/page/${name}.js`);
  if (!found.default) throw new Error(`this server was built without ${name}.js: ${found.why}`);
  return found;
}

// Each starts playing and gives back what ends it and, where the player knows it, how far behind the source it is in seconds.

async function startFlv(video, url, say) {
  const { default: mpegts } = await library("mpegts");
  const config = { enableWorker: false, enableStashBuffer: false, lazyLoad: false, liveBufferLatencyChasing: false };
  const player = mpegts.createPlayer({ type: "flv", isLive: true, url }, config);
  player.on(mpegts.Events.ERROR, (kind, detail, info) => {
    say(info && info.code === 404 ? "nobody publishes it" : `${kind}: ${detail}`);
  });
  player.on(mpegts.Events.LOADING_COMPLETE, () => say("ended"));
  player.attachMediaElement(video);
  player.load();
  return { end: () => player.destroy(), chase: true };
}

async function startHls(video, url, say) {
  const { default: Hls } = await library("hls");
  const player = new Hls({ enableWorker: false, lowLatencyMode: true });
  player.on(Hls.Events.ERROR, (_, { fatal, type, details, response }) => {
    if (fatal) say(response?.code === 404 ? "nobody publishes it" : `${type}: ${details}`);
  });
  player.loadSource(url);
  player.attachMedia(video);
  return { end: () => player.destroy(), latency: () => player.latency };
}

async function startDash(video, url, say) {
  const { MediaPlayer } = await library("dash");
  const player = MediaPlayer().create();
  player.on(MediaPlayer.events.ERROR, ({ error }) => say(error.message ?? String(error)));
  player.initialize(video, url, true);
  return { end: () => player.destroy(), latency: () => player.getCurrentLiveLatency() };
}

/** Plays `path` by one of the ways in a box of its own. */
export function play(path, how) {
  const { label, start } = WAYS[how];
  const url = new URL(path, location.href);
  if (how === "ws") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const box = document.createElement("article");
  box.className = "player";
  box.dataset.how = how;
  box.innerHTML = `
    <video muted autoplay playsinline controls></video>
    <div class="player-bar"><strong></strong><output aria-live="off"></output><button type="button">Close</button></div>`;
  const [video, name, state, close] = ["video", "strong", "output", "button"].map((part) => box.querySelector(part));
  name.textContent = url.pathname.replace(/\.\w+$/, "");
  video.setAttribute("aria-label", `Stream ${name.textContent} by ${label}`);
  document.getElementById("players").append(box);

  let said = "";
  let player = null;
  let closed = false;
  start(video, url.href, (text) => { said = text; }).then((started) => {
    if (closed) return started.end();
    player = started;
    // A browser may not let it begin by itself; its own button is there then.
    Promise.resolve(video.play()).catch(() => {});
  }).catch((error) => { said = error.message; });

  const timer = setInterval(() => {
    const { buffered, currentTime } = video;
    const end = buffered.length > 0 ? buffered.end(buffered.length - 1) : currentTime;
    if (player?.chase && end - currentTime > LAG_MAX && !video.paused) video.currentTime = end - 0.5;
    const { totalVideoFrames = 0, droppedVideoFrames = 0 } = video.getVideoPlaybackQuality();
    const size = video.videoWidth ? `${video.videoWidth}×${video.videoHeight}, ` : "";
    const buffer = `${Math.max(0, end - currentTime).toFixed(1)} s buffered`;
    const latency = player?.latency?.();
    const behind = Number.isFinite(latency) && latency > 0 ? `, ${latency.toFixed(1)} s behind` : "";
    state.textContent = said || `${label}, ${size}${totalVideoFrames} frames, ${droppedVideoFrames} dropped, ${buffer}${behind}`;
  }, 500);
  close.addEventListener("click", () => {
    closed = true;
    clearInterval(timer);
    player?.end();
    box.remove();
  });
  box.scrollIntoView({ block: "nearest" });
  close.focus({ preventScroll: true });
}
