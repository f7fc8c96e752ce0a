// Plays an MPD in Chromium for a while, with dash.js or Shaka Player, and prints what it saw as JSON: how far time went, how many
// frames were shown, how often and long it stood still, what the player found wrong, how late it was in the end; and what
// mpd-parser reads of the MPD.
//
// usage: node play_dash.mjs PAGE_URL MPD_URL SECONDS dash.js|shaka

import { createRequire } from "node:module";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [url, mpd, seconds, which] = process.argv.slice(2);
const require = createRequire(`${process.env.PAGE_MODULES ?? "."}/`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));
const { parse } = require("mpd-parser");

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"],
});

try {
  const page = await browser.newPage();
  await page.setBypassCSP(true);
  await page.goto(url, { waitUntil: "load" });
  const library = { "dash.js": "dashjs/dist/modern/umd/dash.all.min.js", shaka: "shaka-player/dist/shaka-player.compiled.js" }[which];
  await page.addScriptTag({ path: join(process.env.PAGE_MODULES ?? ".", "node_modules", library) });
  await page.evaluate(async (mpd, which) => {
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
    document.body.append(video);
    const seen = { video, faults: [], stalls: 0, stalled: 0 };
    let waits = 0;
    let begun = false;
    video.addEventListener("playing", () => {
      if (waits > 0) seen.stalled += (performance.now() - waits) / 1000;
      [begun, waits] = [true, 0];
    });
    video.addEventListener("waiting", () => { if (begun) { seen.stalls += 1; waits = performance.now(); } });
    window.seen = seen;
    if (which === "dash.js") {
      const player = window.dashjs.MediaPlayer().create();
      player.on(window.dashjs.MediaPlayer.events.ERROR, ({ error }) => seen.faults.push(error.message ?? String(error)));
      player.initialize(video, mpd, true);
      seen.latency = () => player.getCurrentLiveLatency();
    } else {
      const player = new window.shaka.Player();
      await player.attach(video);
      player.addEventListener("error", ({ detail }) => seen.faults.push(`${detail.code} ${detail.data}`));
      player.configure({ streaming: { lowLatencyMode: true } });
      await player.load(mpd).catch((error) => seen.faults.push(`${error.code} ${error.data}`));
      seen.latency = () => player.seekRange().end - video.currentTime;
    }
  }, mpd, which);
  const moving = () => window.seen.video.currentTime > 0.2 && window.seen.video.getVideoPlaybackQuality().totalVideoFrames > 5;
  await page.waitForFunction(moving, { timeout: 30_000 }).catch(() => {});
  const look = () => page.evaluate(() => {
    const { video, faults, stalls, stalled, latency } = window.seen;
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    return { time: video.currentTime, frames, faults, stalls, stalled, latency: latency() };
  });
  const before = await look();
  await new Promise((resolve) => setTimeout(resolve, 1000 * Number(seconds)));
  const after = await look();
  const { playlists, mediaGroups, minimumUpdatePeriod } = parse(await (await fetch(mpd)).text(), { manifestUri: mpd });
  const segments = playlists.map((playlist) => ({ codecs: playlist.attributes.CODECS, durations: playlist.segments.map((segment) => segment.duration) }));
  console.log(JSON.stringify({ before, after, read: { segments, sounds: Object.keys(mediaGroups.AUDIO).length, minimumUpdatePeriod } }));
} finally {
  await browser.close();
}
