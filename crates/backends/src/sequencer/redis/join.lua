-- The next ARGV[3] numbers of the queue ARGV[2], all above ARGV[4]. Where fewer than ARGV[5] are left,
-- one caller is told to fetch more, and another after two seconds. That goes with the pool: nobody is at
-- it for a new one.
-- From ARGV[6] on people may follow: the field of KEYS[4] and so on that has their ticket, the number of
-- one that is over (5 bytes), what is kept of a new one behind its number, and for how many seconds. Then
-- numbers are for those who have none.
local function bytes(seq)
  local text = ''
  for _ = 1, 5 do
    text = string.char(seq % 256) .. text
    seq = math.floor(seq / 256)
  end
  return text
end
local count = tonumber(ARGV[3])
local people = (#ARGV - 5) / 4
local kept = {}
if people > 0 then count = 0 end
for i = 1, people do
  local found = redis.call('HGET', KEYS[3 + i], ARGV[2 + 4 * i])
  if found and string.sub(found, 1, 5) ~= ARGV[3 + 4 * i] then
    kept[i] = found
  else
    kept[i], count = '', count + 1
  end
end
local q = load(ARGV[2])
local before = q.next
q.next = math.max(q.next, tonumber(ARGV[4]))
local first = q.next + 1
local given = q.next + count <= q.limit
if given then
  q.next, q.given = q.next + count, q.given + count
  local seq = first
  for i = 1, people do
    if kept[i] == '' then
      redis.call('HSET', KEYS[3 + i], ARGV[2 + 4 * i], bytes(seq) .. ARGV[4 + 4 * i])
      redis.call('EXPIRE', KEYS[3 + i], ARGV[5 + 4 * i])
      seq = seq + 1
    end
  end
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
return { given and 'OK' or 'SHORT', first, first - 1 - before, fetch, gen, q.limit, left, kept }
