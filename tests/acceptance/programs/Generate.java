import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

/** Java's standard client, which asks a plain-http server for HTTP/2 with `Upgrade: h2c`. Arguments: URL, key. */
class Generate {
    public static void main(String[] arguments) throws Exception {
        var body = "{\"model\": \"flux/schnell\", \"prompt\": \"a red apple\", \"size\": \"64x64\"}";
        var request = HttpRequest.newBuilder(URI.create(arguments[0] + "/v1/images/generations"))
                .header("Authorization", "Bearer " + arguments[1])
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(body))
                .build();
        var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode());
    }
}
