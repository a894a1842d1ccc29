-- The next ARGV[3] numbers of the queue ARGV[2], all above ARGV[4]. Where fewer than ARGV[5] are left,
-- one caller is told to fetch more, and another after two seconds. That goes with the pool: nobody is at
-- it for a new one.
local count = tonumber(ARGV[3])
local q = load(ARGV[2])
local before = q.next
q.next = math.max(q.next, tonumber(ARGV[4]))
local first = q.next + 1
local given = q.next + count <= q.limit
if given then
  q.next, q.given = q.next + count, q.given + count
end
if q.next > before then save(ARGV[2], q) end
local left = math.max(q.limit - q.next, 0)
local fetch = 0
if left < tonumber(ARGV[5]) then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local since = tonumber(redis.call('HGET', KEYS[1], ARGV[2] .. ':fetching')) or 0
  if math.abs(now - since) >= 2000 then
    fetch = 1
    redis.call('HSET', KEYS[1], ARGV[2] .. ':fetching', now)
  end
end
return { given and 'OK' or 'SHORT', first, first - 1 - before, fetch, gen, q.limit, left }
