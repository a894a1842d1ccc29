-- Tickets of people, each for ARGV[2] seconds: the field of KEYS[4] and so on that has their ticket, the
-- number of this one (5 bytes), that of one that it replaces, what is kept behind the number, its flags (2
-- where it was shown, 1 where it was chosen over another), and whether it replaces a chosen one too. The
-- flags are the two highest bits behind the number. Answers what is kept of those who have another one.
local kept = {}
for i = 1, (#ARGV - 2) / 6 do
  local a = 6 * i - 3
  local found = redis.call('HGET', KEYS[3 + i], ARGV[a])
  local other = found and string.sub(found, 1, 5)
  local flags = found and math.floor(string.byte(found, 6) / 64) or 0
  local asked = tonumber(ARGV[a + 4])
  local free = not found or (other == ARGV[a + 2] and (flags % 2 == 0 or ARGV[a + 5] == '1'))
  if other == ARGV[a + 1] then
    free = true
    local shown, chosen = math.max(math.floor(flags / 2), math.floor(asked / 2)), math.max(flags % 2, asked % 2)
    asked = 2 * shown + chosen
  end
  if free then
    if other ~= ARGV[a + 1] or asked ~= flags then
      local behind = ARGV[a + 3]
      local first = string.char(string.byte(behind, 1) + 64 * asked)
      redis.call('HSET', KEYS[3 + i], ARGV[a], ARGV[a + 1] .. first .. string.sub(behind, 2))
    end
    redis.call('EXPIRE', KEYS[3 + i], ARGV[2])
    kept[i] = ''
  else
    kept[i] = found
  end
end
return { 'OK', gen, kept }
