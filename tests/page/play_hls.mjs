// Plays a playlist with hls.js in Chromium for a while and prints what it saw as JSON: how far time went, how many frames
// were shown, what hls.js found wrong, how late it was in the end, what it loaded; and what m3u8-parser reads of the playlist.
//
// usage: node play_hls.mjs PAGE_URL PLAYLIST_URL SECONDS

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, playlist, seconds] = process.argv.slice(2);
const require = createRequire(`${process.env.PAGE_MODULES ?? "."}/`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));
const { Parser } = require("m3u8-parser");

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage", "--ignore-certificate-errors"],
});

try {
  const page = await browser.newPage();
  await page.setBypassCSP(true);
  // How the playlist and what it names come.
  const protocols = new Set();
  const network = await page.createCDPSession();
  await network.send("Network.enable");
  network.on("Network.responseReceived", ({ response }) => {
    if (response.url.startsWith(new URL(playlist).origin)) protocols.add(response.protocol);
  });
  await page.goto(url, { waitUntil: "load" });
  await page.addScriptTag({ path: require.resolve("hls.js/dist/hls.min.js") });
  await page.evaluate((playlist) => {
    const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
    document.body.append(video);
    const seen = { video, faults: [], parts: 0, segments: 0 };
    const hls = new window.Hls({ enableWorker: false, lowLatencyMode: true });
    hls.on(window.Hls.Events.ERROR, (_, error) => seen.faults.push(`${error.details} ${error.fatal ? "(fatal) " : ""}${error.reason ?? ""}`));
    hls.on(window.Hls.Events.FRAG_LOADED, (_, { part }) => { if (part) seen.parts += 1; else seen.segments += 1; });
    hls.on(window.Hls.Events.LEVEL_UPDATED, (_, { details }) => { seen.media = details.url; });
    hls.loadSource(playlist);
    hls.attachMedia(video);
    window.seen = Object.assign(seen, { hls });
  }, playlist);
  await page.waitForFunction(() => window.seen.video.currentTime > 0.2 && window.seen.video.getVideoPlaybackQuality().totalVideoFrames > 5, { timeout: 30_000 }).catch(() => {});
  const look = () => page.evaluate(() => {
    const { video, faults, parts, segments, hls, media } = window.seen;
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    return { time: video.currentTime, frames, faults, parts, segments, latency: hls.latency, media };
  });
  const before = await look();
  await new Promise((resolve) => setTimeout(resolve, 1000 * Number(seconds)));
  const after = await look();
  const parser = new Parser();
  parser.push(after.media ? await (await fetch(after.media)).text() : "");
  parser.end();
  const { targetDuration, mediaSequence, segments } = parser.manifest;
  const read = { targetDuration, mediaSequence, durations: segments.map((segment) => segment.duration ?? 0) };
  console.log(JSON.stringify({ before, after, read, protocols: [...protocols] }));
} finally {
  await browser.close();
}
