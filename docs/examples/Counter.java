// Counts through switch-overs and failovers, with Jedis and its Sentinel.
//
// usage: java -cp JARS Counter.java HOST:PORT[,HOST:PORT...] KEY    counts until its standard input ends, then prints what happened as JSON
//        JARS: jedis, commons-pool2, gson, json and slf4j-api, as Jedis's own page lists them
//
// An increment whose outcome is unknown is neither repeated blindly nor given up: a write to another key of the same file goes behind
// it, and then the counter says whether it was done.
import java.util.HashSet;
import java.util.Set;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisClientConfig;
import redis.clients.jedis.JedisSentineled;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.exceptions.JedisException;

public class Counter {
  static volatile boolean over;
  static JedisSentineled client;
  static String key, fence;

  /** Returns the counter once nothing that was sent before can change it any more. */
  static long settle() throws InterruptedException {
    for (long end = System.nanoTime() + 60_000_000_000L;; Thread.sleep(50)) {
      try {
        client.set(fence, Long.toString(System.nanoTime()));
        String value = client.get(key);
        return value == null ? 0 : Long.parseLong(value);
      } catch (JedisException e) {
        if (System.nanoTime() > end) throw e;
      }
    }
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 2) return; // it was compiled: the library is there
    Set<HostAndPort> sentinels = new HashSet<>();
    for (String address : args[0].split(",")) sentinels.add(HostAndPort.from(address));
    key = args[1];
    fence = key.contains(":") ? key.substring(0, key.lastIndexOf(':')) + ":fence" : "fence";
    JedisClientConfig config = DefaultJedisClientConfig.builder().timeoutMillis(20_000).build();
    client = new JedisSentineled("default", config, sentinels, DefaultJedisClientConfig.builder().build());
    Thread input = new Thread(() -> {
      try {
        while (System.in.read() >= 0) { }
      } catch (java.io.IOException e) { } // its end, too
      over = true;
    });
    input.setDaemon(true);
    input.start();

    long begun = settle(), counted = begun, unknown = 0, refused = 0;
    System.out.println("counting");
    while (!over) {
      long value;
      try {
        value = client.incr(key);
      } catch (JedisDataException e) {
        if (e.getMessage().startsWith("TRYAGAIN")) { // surely not done
          refused++;
          continue;
        }
        if (!e.getMessage().startsWith("UNKNOWNOUTCOME")) throw e;
        unknown++;
        value = settle();
      } catch (JedisException e) { // no answer at all
        unknown++;
        value = settle();
      }
      if (value != counted && value != counted + 1) throw new IllegalStateException("the counter is " + value + " after " + counted);
      counted = value;
    }
    System.out.printf("{\"client\": \"Jedis\", \"begun\": %d, \"counted\": %d, \"value\": %d, \"unknown\": %d, \"refused\": %d}%n", begun, counted, settle(), unknown, refused);
    client.close();
  }
}
