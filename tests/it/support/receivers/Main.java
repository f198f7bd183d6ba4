import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

class Main {
    public static void main(String[] arguments) throws Exception {
        Map<String, String> headers = new HashMap<>();
        for (String line : Files.readAllLines(Path.of("headers"))) {
            String[] parts = line.split(": ", 2);
            headers.put(parts[0], parts[1]);
        }
        try {
            Receiver.receive(Files.readString(Path.of("secret")), headers, Files.readAllBytes(Path.of("body")));
            System.out.println("accepted");
        } catch (Exception error) {
            System.out.println("refused: " + error.getMessage());
        }
    }
}
