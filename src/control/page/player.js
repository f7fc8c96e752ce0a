// Players on the page: mpegts.js over HTTP-FLV or WebSocket-FLV.

import mpegts, * as library from "/page/mpegts.js";

/** How far behind the newest picture a player may fall, in seconds, before it jumps ahead. */
const LAG_MAX = 3;

/** Why nothing can be played here; empty if something can. */
export function obstacle() {
  if (!mpegts) return `This server was built without its player: ${library.why}.`;
  return mpegts.isSupported() ? "" : "This browser has no Media Source Extensions.";
}

/** Plays `path` by "flv" or "ws" in a box of its own. */
export function play(path, how) {
  const url = new URL(path, location.href);
  if (how === "ws") url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  const box = document.createElement("article");
  box.className = "player";
  box.dataset.how = how;
  box.innerHTML = `
    <video muted autoplay playsinline controls></video>
    <div class="player-bar"><strong></strong><output aria-live="off"></output><button type="button">Close</button></div>`;
  const [video, name, state, close] = ["video", "strong", "output", "button"].map((part) => box.querySelector(part));
  name.textContent = url.pathname.replace(/\.flv$/, "");
  video.setAttribute("aria-label", `Stream ${name.textContent}`);
  document.getElementById("players").append(box);

  const config = { enableWorker: false, enableStashBuffer: false, lazyLoad: false, liveBufferLatencyChasing: false };
  const player = mpegts.createPlayer({ type: "flv", isLive: true, url: url.href }, config);
  let said = "";
  player.on(mpegts.Events.ERROR, (kind, detail, info) => {
    said = info && info.code === 404 ? "nobody publishes it" : `${kind}: ${detail}`;
    state.textContent = said;
  });
  player.on(mpegts.Events.LOADING_COMPLETE, () => { said = "ended"; });
  player.attachMediaElement(video);
  player.load();
  // A browser may not let it begin by itself; its own button is there then.
  Promise.resolve(player.play()).catch(() => {});

  const timer = setInterval(() => {
    const { buffered, currentTime } = video;
    const end = buffered.length > 0 ? buffered.end(buffered.length - 1) : currentTime;
    if (end - currentTime > LAG_MAX && !video.paused) video.currentTime = end - 0.5;
    const { totalVideoFrames = 0, droppedVideoFrames = 0 } = video.getVideoPlaybackQuality();
    const size = video.videoWidth ? `${video.videoWidth}×${video.videoHeight}, ` : "";
    const lag = Math.max(0, end - currentTime).toFixed(1);
    const label = how === "ws" ? "WebSocket" : "HTTP-FLV";
    state.textContent = said || `${label}, ${size}${totalVideoFrames} frames, ${droppedVideoFrames} dropped, ${lag} s buffered`;
  }, 500);
  close.addEventListener("click", () => {
    clearInterval(timer);
    player.destroy();
    box.remove();
  });
  box.scrollIntoView({ block: "nearest" });
  close.focus({ preventScroll: true });
}
