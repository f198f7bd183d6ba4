
headers = File.read("headers").lines(chomp: true).to_h { |line| line.split(": ", 2) }
begin
  receive(File.read("secret"), headers, File.binread("body"))
  puts "accepted"
rescue => error
  puts "refused: #{error}"
end
