// Drives the page in Chromium as a person would: waits for streams, plays one by HTTP-FLV, HLS and
// DASH and one by WebSocket with the keyboard alone, and checks that pictures move. Prints what it saw as JSON.
//
// usage: node play.mjs PAGE_URL [SCREENSHOT_DIRECTORY]

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, screenshots] = process.argv.slice(2);
const require = createRequire(`${process.env.PAGE_MODULES ?? "."}/`);
const { default: puppeteer } = await import(pathToFileURL(require.resolve("puppeteer-core")));

const browser = await puppeteer.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required", "--disable-dev-shm-usage"],
});
const faults = [];

try {
  const page = await browser.newPage();
  await page.setViewport({ width: 1280, height: 900 });
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => { if (message.type() === "error") faults.push(message.text()); });
  await page.goto(url, { waitUntil: "load" });
  await page.waitForFunction(() => document.querySelectorAll("#streams tbody tr").length >= 2, { timeout: 30_000 });
  const rows = await page.$$eval("#streams tbody tr", (rows) => rows.map((row) => [...row.cells].slice(0, 6).map((cell) => cell.textContent)));

  // Tab to the first stream's first button, Enter; and on to the last stream's WebSocket button.
  const press = async (label) => {
    for (let step = 0; step < 60; step += 1) {
      const here = await page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? "");
      if (here === label) return page.keyboard.press("Enter");
      await page.keyboard.press("Tab");
    }
    throw new Error(`no way to ${label} by keyboard`);
  };
  await press(`Play ${rows[0][0]} by HTTP-FLV`);
  await page.evaluate(() => document.activeElement.blur());
  await press(`Play ${rows.at(-1)[0]} by WebSocket`);
  for (const how of ["HLS", "DASH"]) {
    await page.evaluate(() => document.activeElement.blur());
    await press(`Play ${rows[0][0]} by ${how}`);
  }

  const look = () => page.$$eval(".player", (boxes) => boxes.map((box) => {
    const video = box.querySelector("video");
    const { totalVideoFrames } = video.getVideoPlaybackQuality();
    return { how: box.dataset.how, time: video.currentTime, frames: totalVideoFrames, width: video.videoWidth, said: box.querySelector("output").textContent };
  }));
  const running = () => [...document.querySelectorAll("video")].every((video) => video.currentTime > 0.5 && video.getVideoPlaybackQuality().totalVideoFrames > 10);
  await page.waitForFunction(running, { timeout: 30_000 });
  const before = await look();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const after = await look();

  if (screenshots) {
    for (const scheme of ["light", "dark"]) {
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      for (const [name, width, height] of [["wide", 1280, 900], ["phone", 390, 844]]) {
        await page.setViewport({ width, height });
        await new Promise((resolve) => setTimeout(resolve, 700));
        await page.screenshot({ path: `${screenshots}/${name}-${scheme}.png`, fullPage: true });
      }
    }
  }
  await page.setViewport({ width: 390, height: 844 });
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  const charts = await page.$$eval(".shard polyline", (lines) => lines.filter((line) => line.getAttribute("points").split(" ").length > 1).length);
  console.log(JSON.stringify({ rows, before, after, overflow, charts, faults }));
} finally {
  await browser.close();
}
