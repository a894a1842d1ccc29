-- What an instance tells and hears. KEYS[3] says whose turn it is to admit, KEYS[4] and so on are
-- queues. ARGV: 2 and 3 the place in the log up to which this instance has read, 4 for how many
-- milliseconds it wants the turn (0: not, -1: without asking), 5 its name, 6 the keys that it signs
-- and knows tickets by ('' when it ends), 7 the number of queues, then the last number known of
-- each, then lines for the log.
local queues = tonumber(ARGV[7])
local heads = {}
for i = 1, queues do
  local q = load(KEYS[3 + i])
  local known = tonumber(ARGV[7 + i])
  if known > q.next then
    q.next = known
    redis.call('HSET', KEYS[3 + i], 'next', known)
  end
  heads[i] = { q.next, q.limit, q.loose, q.given }
end
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq')) or 0
for i = 8 + queues, #ARGV do
  seq = seq + 1
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, seq .. '-0', 'e', ARGV[i])
end
if #ARGV > 7 + queues then redis.call('HSET', KEYS[1], 'seq', seq) end
local gap, lines = 1, {}
local read = tonumber(ARGV[3])
if ARGV[2] == gen and read <= seq and seq - read <= 5000 then
  local found = redis.call('XRANGE', KEYS[2], (read + 1) .. '-0', '+')
  if #found == seq - read then
    gap = 0
    for i, entry in ipairs(found) do lines[i] = entry[2][2] end
  end
end
local turn, wanted = 0, tonumber(ARGV[4])
if wanted < 0 or (wanted > 0 and redis.call('SET', KEYS[3], '1', 'NX', 'PX', wanted)) then turn = 1 end
local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Who else runs is told to those who come.
local others = {}
if gap == 1 then
  local instances = redis.call('HGETALL', KEYS[1] .. ':instances')
  for i = 1, #instances, 2 do
    local seen, keys = string.match(instances[i + 1], '^(%d+) (.*)$')
    local missed = ms - tonumber(seen)
    if missed < 5000 then others[#others + 1] = keys end
    if missed > 600000 then redis.call('HDEL', KEYS[1] .. ':instances', instances[i]) end
  end
end
if ARGV[6] == '' then
  redis.call('HDEL', KEYS[1] .. ':instances', ARGV[5])
else
  redis.call('HSET', KEYS[1] .. ':instances', ARGV[5], string.format('%.0f ', ms) .. ARGV[6])
end
return { 'OK', gen, seq, gap, turn, ms, heads, lines, others }
