-- What an instance tells and hears. KEYS[3] says whose turn it is to admit. ARGV: 2 and 3 the place in
-- the log up to which this instance has read, 4 for how many milliseconds it wants the turn (0: not,
-- -1: without asking), 5 the number of queues, then each queue and the last number known of it, then
-- lines for the log.
local queues = tonumber(ARGV[5])
local heads = {}
for i = 1, queues do
  local queue, known = ARGV[4 + 2 * i], tonumber(ARGV[5 + 2 * i])
  local q = load(queue)
  if known > q.next then
    q.next = known
    save(queue, q)
  end
  heads[i] = { q.next, q.limit, q.given }
end
local lines_from = 6 + 2 * queues
local seq = tonumber(redis.call('HGET', KEYS[1], 'seq')) or 0
for i = lines_from, #ARGV do
  seq = seq + 1
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', 10000, seq .. '-0', 'e', ARGV[i])
end
if #ARGV >= lines_from then redis.call('HSET', KEYS[1], 'seq', seq) end
-- Whoever has missed something is told what there is of the last lines all the same: who was seen a moment
-- ago may be in no store yet.
local read = tonumber(ARGV[3])
local gap = (ARGV[2] == gen and read <= seq and seq - read <= 5000) and 0 or 1
if gap == 1 then read = math.max(seq - 5000, 0) end
local lines = {}
local found = redis.call('XRANGE', KEYS[2], (read + 1) .. '-0', '+')
if #found ~= seq - read then gap = 1 end
for i, entry in ipairs(found) do lines[i] = entry[2][2] end
local turn, wanted = 0, tonumber(ARGV[4])
if wanted < 0 or (wanted > 0 and redis.call('SET', KEYS[3], '1', 'NX', 'PX', wanted)) then turn = 1 end
local time = redis.call('TIME')
return { 'OK', gen, seq, gap, turn, time[1] * 1000 + math.floor(time[2] / 1000), heads, lines }
