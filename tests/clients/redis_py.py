"""redis-py against ringdove: the plain client in both protocol versions, then RedisCluster."""

import sys

import redis
from redis.cluster import ClusterNode, RedisCluster

addresses = [address.rsplit(":", 1) for address in sys.argv[1:]]
addresses = [(host, int(port)) for host, port in addresses]


def equal(actual, expected):
    assert actual == expected, f"{actual!r}, expected {expected!r}"


def strings(client, prefix):
    key = prefix + "key"
    equal(client.set(key, "value"), True)
    equal(client.get(key), b"value")
    equal(client.get(prefix + "missing"), None)
    equal(client.set(key, "other", nx=True), None)
    equal(client.set(key, "third", xx=True, get=True), b"value")
    equal(client.append(key, "!"), 6)
    equal(client.getrange(key, 1, 3), b"hir")
    equal(client.strlen(key), 6)
    equal(client.incr(prefix + "count", 5), 5)
    equal(client.decr(prefix + "count"), 4)
    equal(client.incrbyfloat(prefix + "float", 1.5), 1.5)
    binary = bytes(range(256))
    client.set(prefix.encode() + binary, binary * 100)
    equal(client.get(prefix.encode() + binary), binary * 100)
    equal(client.type(key), b"string")


def expiry(client, prefix):
    key = prefix + "mortal"
    client.set(key, "v", ex=100)
    assert 90 < client.ttl(key) <= 100
    assert 90_000 < client.pttl(key) <= 100_000
    equal(client.persist(key), True)
    equal(client.ttl(key), -1)
    equal(client.expire(key, 50), True)
    equal(client.getex(key, persist=True), b"v")
    equal(client.ttl(key), -1)
    equal(client.ttl(prefix + "missing"), -2)
    equal(client.getdel(key), b"v")
    equal(client.exists(key), 0)


def many(client, prefix):
    names = [f"{prefix}many:{i}" for i in range(200)]
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(name, name)
        equal(pipe.execute(), [True] * len(names))
    # A set, as RedisCluster asks every node, and each knows all keys.
    equal(set(client.scan_iter(match=prefix + "many:*", count=50)), {n.encode() for n in names})
    return names


def refusals(client, prefix):
    client.set(prefix + "text", "not a number")
    try:
        client.incr(prefix + "text")
    except redis.ResponseError as error:
        equal(str(error), "value is not an integer or out of range")
    else:
        raise AssertionError("INCR of a text succeeded")


def plain(protocol):
    for number, (host, port) in enumerate(addresses):
        client = redis.Redis(host=host, port=port, protocol=protocol, client_name="stock")
        prefix = f"py{protocol}:{number}:"
        equal(client.ping(), True)
        equal(client.echo("hello"), b"hello")
        equal(client.client_getname() in (b"stock", "stock"), True)
        assert client.client_id() > 0
        strings(client, prefix)
        expiry(client, prefix)
        names = many(client, prefix)
        refusals(client, prefix)
        equal(client.mget(names[:3] + [prefix + "missing"]), [n.encode() for n in names[:3]] + [None])
        equal(client.mset({prefix + "m1": 1, prefix + "m2": 2}), True)
        equal(client.exists(prefix + "m1", prefix + "m2", prefix + "m3"), 2)
        equal(client.delete(*names), len(names))
        assert client.dbsize() > 0
        assert client.info("server")
        assert client.command_count() > 60
        client.config_get("maxmemory")
        try:
            client.execute_command("NOSUCH", prefix)
        except redis.ResponseError as error:
            assert str(error).startswith("unknown command 'NOSUCH'"), error
        else:
            raise AssertionError("an unknown command succeeded")
        # What one node took, every other has.
        for other_host, other_port in addresses:
            equal(redis.Redis(host=other_host, port=other_port).get(prefix + "m2"), b"2")
        client.close()


def cluster():
    client = RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in addresses[:1]])
    found = {(node.host, node.port) for node in client.get_primaries()}
    equal(found, set(addresses))
    prefix = "pycluster:"
    strings(client, prefix)
    expiry(client, prefix)
    many(client, prefix)
    refusals(client, prefix)
    client.mset_nonatomic({f"{prefix}n{i}": i for i in range(50)})
    equal(client.mget_nonatomic([f"{prefix}n{i}" for i in range(50)]), [str(i).encode() for i in range(50)])
    equal(client.mget("{tag}a", "{tag}b"), [None, None])
    equal(client.cluster_info(target_nodes=client.get_default_node()).get("cluster_state"), "ok")
    assert client.dbsize() > 0
    client.close()


plain(2)
plain(3)
cluster()
print("redis-py", redis.__version__, "is content")
