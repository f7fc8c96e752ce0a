// Plays MPEG-TS with the page's own mpegts.js in Chromium, a player per address, and prints what each saw as JSON.
//
// usage: node play_ts.mjs PAGE_URL STREAM_URL...

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, ...streams] = process.argv.slice(2);
const require = createRequire(`${process.env.PAGE_MODULES ?? "."}/`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"],
});

try {
  const page = await browser.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(url, { waitUntil: "load" });
  await page.evaluate(async (streams) => {
    const { default: mpegts } = await import("/page/mpegts.js");
    window.seen = streams.map((url) => {
      const video = Object.assign(document.createElement("video"), { muted: true, autoplay: true });
      document.body.append(video);
      const seen = { video, faults: [], info: {} };
      const player = mpegts.createPlayer({ type: "mpegts", isLive: true, url }, { enableWorker: false, enableStashBuffer: false, lazyLoad: false });
      player.on(mpegts.Events.ERROR, (kind, detail, info) => seen.faults.push(`${kind}: ${detail} ${info?.msg ?? ""}`));
      player.on(mpegts.Events.MEDIA_INFO, (info) => { seen.info = info; });
      video.addEventListener("error", () => seen.faults.push(video.error.message));
      player.attachMediaElement(video);
      player.load();
      Promise.resolve(player.play()).catch((error) => seen.faults.push(String(error)));
      return seen;
    });
  }, streams);
  const running = () => window.seen.every(({ video, faults }) => faults.length > 0 || (video.currentTime > 0.5 && video.getVideoPlaybackQuality().totalVideoFrames > 10));
  await page.waitForFunction(running, { timeout: 30_000 }).catch((error) => faults.push(String(error)));
  const look = () => page.evaluate(() => window.seen.map(({ video, faults, info }) => ({
    time: video.currentTime, frames: video.getVideoPlaybackQuality().totalVideoFrames, width: video.videoWidth,
    codecs: [info.videoCodec, info.audioCodec], faults,
  })));
  const before = await look();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const after = await look();
  console.log(JSON.stringify({ before, after, faults }));
} finally {
  await browser.close();
}
