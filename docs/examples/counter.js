#!/usr/bin/env node
// Counts through switch-overs and failovers, with ioredis (npm install ioredis) and its Sentinel.
//
// usage: counter.js HOST:PORT[,HOST:PORT...] KEY    counts until its standard input ends, then prints what happened as JSON
//
// An increment whose outcome is unknown is neither repeated blindly nor given up: a write to another key of the same file goes behind
// it, and then the counter says whether it was done.
const Redis = require('ioredis').Redis || require('ioredis');
const version = require('ioredis/package.json').version;

const sentinels = process.argv[2].split(',').map((a) => {
  const i = a.lastIndexOf(':');
  return { host: a.slice(0, i), port: Number(a.slice(i + 1)) };
});
const key = process.argv[3];
const fence = key.includes(':') ? key.slice(0, key.lastIndexOf(':')) + ':fence' : 'fence';

const client = new Redis({
  sentinels,
  name: 'default',
  autoResendUnfulfilledCommands: false, // an increment that was sent is not sent again
  maxRetriesPerRequest: 0,
  sentinelRetryStrategy: () => 50,
  retryStrategy: () => 50,
});
client.on('error', () => {}); // the command that it concerns says it, too

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// settle returns the counter once nothing that was sent before can change it any more.
async function settle() {
  for (const end = Date.now() + 60000; ; await pause(50)) {
    try {
      await client.set(fence, Date.now());
      return Number((await client.get(key)) || 0);
    } catch (e) {
      if (Date.now() > end) throw e;
    }
  }
}

let over = false;
process.stdin.on('data', () => {}).on('end', () => { over = true; });

(async () => {
  const begun = await settle();
  let counted = begun, unknown = 0, refused = 0;
  console.log('counting');
  while (!over) {
    let value;
    try {
      value = await client.incr(key);
    } catch (e) {
      if (String(e.message).startsWith('TRYAGAIN')) { // surely not done
        refused++;
        continue;
      }
      unknown++;
      value = await settle();
    }
    if (value !== counted && value !== counted + 1) throw new Error(`the counter is ${value} after ${counted}`);
    counted = value;
  }
  console.log(JSON.stringify({ client: 'ioredis ' + version, begun, counted, value: await settle(), unknown, refused }));
  client.disconnect();
})().catch((e) => {
  console.error(e);
  process.exit(1);
});
