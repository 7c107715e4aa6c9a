-- Counts one batch of one producer's records in one partition, whole or not at all.
--
-- KEYS[1]  the partition: one hash that holds counts, cursors and token bits together, so that whatever the
--          server forgets (kill, failover, restore), it forgets consistently. With ':late' at its end it is the
--          partition of what came after its day was closed.
-- ARGV     producer, from, to, number of fields, number of chunks, then field and increment pairs, then chunk and
--          entries pairs. An entry is 3 bytes: token in chunk * 4 + event, and the index of its field (u16, from 1).
-- Returns  {status, cursor, producer, to, repeats}: status is applied, mismatch, sealed or corrupt.
--
-- All is read first; then there is exactly one write command. With two, the server would wrap them in MULTI/EXEC,
-- and a power cut inside that block leaves an append-only file that later executes the torn half.
local call, key, producer = redis.call, KEYS[1], ARGV[1]
local from, to = tonumber(ARGV[2]), tonumber(ARGV[3])
local fields, chunks = tonumber(ARGV[4]), tonumber(ARGV[5])
-- What is counted without a journal has no numbers: its token bits alone keep it from counting twice, and its cursor
-- is how many events were counted so.
local nobody = '0000000000000000'

local names = {'sealed', '@' .. producer}
local directories, place = {}, {}
for i = 1, fields do
  local name = ARGV[4 + 2 * i]
  names[#names + 1] = name
  local directory = 'F' .. string.match(name, '^%d+:(%d+)')
  if not place[directory] then
    place[directory] = true
    directories[#directories + 1] = directory
  end
end
local first_chunk = 5 + 2 * fields
for i = 1, chunks do names[#names + 1] = ARGV[first_chunk + 2 * i - 1] end
for i, directory in ipairs(directories) do
  names[#names + 1] = directory
  place[directory] = #names
end

-- The number of a field, or nil for what we never wrote: tonumber alone would take 'inf', '0x10' and ' 5 '.
local function whole(value)
  if not value then return 0 end
  return #value <= 15 and string.match(value, '^%d+$') and tonumber(value)
end

-- A day takes nothing once it is sealed; its late partition takes nothing before it is open.
local late = string.sub(key, -5) == ':late'
if late then names[1] = 'open' end
local values = call('HMGET', key, unpack(names))
if (not values[1]) == late then return {'sealed', 0, producer, to, 0} end
local cursor = whole(values[2])
if not cursor then return {'corrupt', 0, producer, to, 0} end
if producer ~= nobody and cursor ~= from then return {'mismatch', cursor, producer, to, 0} end

local count, fresh = {}, {}
for i = 1, fields do
  local before = whole(values[2 + i])
  if not before then return {'corrupt', 0, producer, to, 0} end
  count[i] = before + tonumber(ARGV[5 + 2 * i])
  if not values[2 + i] then fresh[#fresh + 1] = i end
end

local out, events, repeats = {'@' .. producer, ARGV[3]}, 0, 0
for i = 1, chunks do
  local bits = {string.byte(values[2 + fields + i] or string.rep('\0', 32), 1, 32)}
  if #bits ~= 32 then return {'corrupt', 0, producer, to, 0} end
  local entries, changed = ARGV[first_chunk + 2 * i], false
  for j = 1, #entries, 3 do
    local position, low, high = string.byte(entries, j, j + 2)
    events = events + 1
    local at, mask = bit.rshift(position, 3) + 1, bit.lshift(1, bit.band(position, 7))
    if bit.band(bits[at], mask) == 0 then
      bits[at] = bit.bor(bits[at], mask)
      changed = true
      local field = low + high * 256
      count[field] = count[field] + 1
    else
      repeats = repeats + 1
    end
  end
  if changed then
    out[#out + 1] = ARGV[first_chunk + 2 * i - 1]
    out[#out + 1] = string.char(unpack(bits))
  end
end

for i = 1, fields do
  out[#out + 1] = names[2 + i]
  out[#out + 1] = string.format('%.0f', count[i])
end
local added = {}
for _, i in ipairs(fresh) do
  local directory = 'F' .. string.match(names[2 + i], '^%d+:(%d+)')
  added[directory] = (added[directory] or values[place[directory]] or '') .. names[2 + i] .. '\n'
end
for directory, text in pairs(added) do
  out[#out + 1] = directory
  out[#out + 1] = text
end
if producer == nobody then out[2] = string.format('%.0f', cursor + events - repeats) end
call('HSET', key, unpack(out))
return {'applied', to, producer, to, repeats}
