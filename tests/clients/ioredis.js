// ioredis against ringdove: the plain client, then Cluster.
"use strict";

const assert = require("node:assert/strict");
const Redis = require("ioredis");

const addresses = process.argv.slice(2).map((address) => {
  const at = address.lastIndexOf(":");
  return { host: address.slice(0, at), port: Number(address.slice(at + 1)) };
});

async function strings(client, prefix) {
  const key = prefix + "key";
  assert.equal(await client.set(key, "value"), "OK");
  assert.equal(await client.get(key), "value");
  assert.equal(await client.get(prefix + "missing"), null);
  assert.equal(await client.set(key, "other", "NX"), null);
  assert.equal(await client.set(key, "third", "EX", 100, "XX", "GET"), "value");
  assert.ok((await client.ttl(key)) > 90);
  assert.equal(await client.append(key, "!"), 6);
  assert.equal(await client.incrby(prefix + "count", 7), 7);
  assert.equal(await client.incrbyfloat(prefix + "float", "0.5"), "0.5");
  const binary = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await client.set(prefix + "binary", binary);
  assert.deepEqual(await client.getBuffer(prefix + "binary"), binary);
  assert.equal(await client.del(prefix + "binary"), 1);
  await assert.rejects(client.incr(key), /^ReplyError: ERR value is not an integer or out of range/);
}

async function pipelined(client, prefix) {
  // A pipeline of ioredis's Cluster stays in one node's slots: one hash tag.
  const pipeline = client.pipeline();
  for (let i = 0; i < 100; i++) pipeline.set(`{${prefix}}${i}`, i);
  for (let i = 0; i < 100; i++) pipeline.get(`{${prefix}}${i}`);
  const replies = await pipeline.exec();
  for (let i = 0; i < 100; i++) {
    assert.deepEqual(replies[i], [null, "OK"]);
    assert.deepEqual(replies[100 + i], [null, String(i)]);
  }
}

async function plain() {
  for (const [number, address] of addresses.entries()) {
    const client = new Redis({ ...address, maxRetriesPerRequest: 1, connectionName: "stock" });
    const prefix = `io:${number}:`;
    assert.equal(await client.ping(), "PONG");
    await strings(client, prefix);
    await pipelined(client, prefix);
    assert.equal(await client.mset(prefix + "a", 1, prefix + "b", 2), "OK");
    assert.deepEqual(await client.mget(prefix + "a", prefix + "b", prefix + "c"), ["1", "2", null]);
    const found = [];
    for await (const keys of client.scanStream({ match: prefix + "*" })) found.push(...keys);
    assert.ok(found.includes(prefix + "a") && found.includes(prefix + "b"));
    assert.equal(new Set(found).size, found.length);
    assert.match(await client.info(), /redis_version/);
    client.disconnect();
  }
}

async function cluster() {
  const client = new Redis.Cluster(addresses.slice(0, 1), { redisOptions: { maxRetriesPerRequest: 3 } });
  await client.ping();
  const found = client.nodes("master").map((node) => node.options.port).sort();
  assert.deepEqual(found, addresses.map((address) => address.port).sort());
  await strings(client, "iocluster:");
  await pipelined(client, "iocluster");
  await Promise.all(
    Array.from({ length: 200 }, async (_, i) => {
      await client.set(`iocluster:n${i}`, i);
      assert.equal(await client.get(`iocluster:n${i}`), String(i));
    }),
  );
  client.disconnect();
}

async function main() {
  await plain();
  await cluster();
  console.log("ioredis is content");
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
